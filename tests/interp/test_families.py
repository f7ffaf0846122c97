"""Every family behind the same names: the adapter's own proof on a tiny pipeline, and what the proof cannot see."""

from __future__ import annotations

import pytest
import torch

from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.check.proof import check_adapter
from cos_interp.interp.families import tiny


def hooked(name):
    return HookedVideoPipeline.from_pipeline(tiny.build(name))


@pytest.mark.parametrize("name", list(tiny.TINY))
def test_every_name_is_proven(name):
    report = check_adapter(tiny.build(name), **tiny.call(name, steps=2))
    assert report.passed, str(report)


@pytest.mark.parametrize("name", ["ltx", "allegro", "cosmos1", "cogvideox-5b", "mochi", "hunyuan", "latte", "easyanimate"])
def test_cond_means_the_same_with_and_without_guidance(name):
    sites = ["hook_embed", "blocks.1.hook_resid_post", "blocks.1.hook_mlp_out", "hook_model_out"]
    _, guided = hooked(name).run_with_cache(names=sites, steps=0, seed=0, **tiny.call(name))
    _, alone = hooked(name).run_with_cache(names=sites, steps=0, seed=0, **tiny.call(name, guided=False))
    assert guided.branches(sites[1]) == ["cond", "uncond"] and alone.branches(sites[1]) == ["cond"]
    for site in sites:
        torch.testing.assert_close(guided[site, 0], alone[site, 0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(guided[sites[1], 0, "uncond"], alone[sites[1], 0], atol=1e-3)


def test_cogvideox_against_hand_written_hooks_at_other_sizes():
    pipe, call = tiny.build("cogvideox-5b"), tiny.call("cogvideox-5b", steps=3, size=48, frames=17)
    call |= {"prompt": ["a red ball", "move the box"], "negative_prompt": ["a", "a"]}
    seen, text_length, rows = [], 12, 2
    keep = lambda module, args, out: seen.append(out.clone())
    handle = pipe.transformer.transformer_blocks[1].ff.register_forward_hook(keep)
    generators = [torch.Generator().manual_seed(s) for s in (3, 4)]
    final = pipe(**call, generator=generators, output_type="latent", return_dict=False)[0]
    handle.remove()
    name = "blocks.1.hook_mlp_out"
    run, cache = HookedVideoPipeline.from_pipeline(pipe).run_with_cache(names=[name, f"{name}_text"], seed=[3, 4], **call)
    assert torch.equal(run.latents.transpose(1, 2), final)
    for step in range(3):
        for place, branch in enumerate(("uncond", "cond")):
            mine = seen[step][place * rows : (place + 1) * rows]
            assert torch.equal(cache[f"{name}_text", step, branch], mine[:, :text_length])
            assert torch.equal(cache[name, step, branch], mine[:, text_length:].reshape(rows, 5, 3, 3, -1))


def forward_hooks(pipe, call, modules):
    """What PyTorch's own hooks see, by path: one output for every forward; and the final latents."""
    seen = {path: [] for path in modules}
    first = lambda out: (out[0] if isinstance(out, tuple) else out).clone()
    handles = [
        pipe.transformer.get_submodule(path).register_forward_hook(lambda m, a, out, p=path: seen[p].append(first(out)))
        for path in modules
    ]
    pipe(**call, generator=torch.Generator().manual_seed(0), output_type="latent", return_dict=False)
    for handle in handles:
        handle.remove()
    return seen


def test_latte_against_hand_written_hooks():
    """Spatial blocks give [batch x frame, place, d], temporal ones [batch x place, frame, d]; both branches in one batch."""
    call = tiny.call("latte", steps=2)
    seen = forward_hooks(tiny.build("latte"), call, ["transformer_blocks.1", "temporal_transformer_blocks.1"])
    names = ["blocks.2.hook_resid_post", "blocks.3.hook_resid_post"]
    _, cache = hooked("latte").run_with_cache(names=names, seed=0, **call)
    for step in range(2):
        spatial, temporal = (seen[path][step] for path in seen)
        for place, branch in enumerate(("uncond", "cond")):
            frames = spatial[3 * place : 3 * place + 3].reshape(1, 3, 2, 2, -1)
            assert torch.equal(cache[names[0], step, branch], frames)
            places = temporal[4 * place : 4 * place + 4].reshape(1, 2, 2, 3, -1).permute(0, 3, 1, 2, 4)
            assert torch.equal(cache[names[1], step, branch], places)


def test_hunyuan_against_hand_written_hooks():
    """Layers 0 and 1 are dual-stream blocks, 2 and 3 single-stream ones; the branches are two forwards."""
    call = tiny.call("hunyuan", steps=2, size=48)
    seen = forward_hooks(tiny.build("hunyuan"), call, ["transformer_blocks.1", "single_transformer_blocks.0"])
    _, cache = hooked("hunyuan").run_with_cache(names="blocks.*.hook_resid_post", seed=0, **call)
    for layer, path in ((1, "transformer_blocks.1"), (2, "single_transformer_blocks.0")):
        for forward, value in enumerate(seen[path]):
            step, branch = divmod(forward, 2)
            kept = cache[f"blocks.{layer}.hook_resid_post", step, ("cond", "uncond")[branch]]
            assert kept.shape == (1, 3, 3, 3, 20) and torch.equal(kept.flatten(1, 3), value)


def test_ltx_against_hand_written_hooks():
    """One doubled forward a step; tokens are latent cells in the order frame, row, column."""
    call = tiny.call("ltx", steps=2, size=64)
    seen = forward_hooks(tiny.build("ltx"), call, ["transformer_blocks.2"])["transformer_blocks.2"]
    name = "blocks.2.hook_resid_post"
    _, cache = hooked("ltx").run_with_cache(names=name, seed=0, **call)
    for step, value in enumerate(seen):
        uncond, cond = value.chunk(2)
        assert torch.equal(cache[name, step, "uncond"].flatten(1, 3), uncond)
        assert torch.equal(cache[name, step].flatten(1, 3), cond)
