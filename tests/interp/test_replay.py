"""Patched replays against hand-written forward hooks on the same pipeline, bit for bit, at the minimal cost."""

from __future__ import annotations

import random

import pytest
import torch
from support import FAMILIES, build_tiny, plain, tiny_call

from cos_interp.interp import HookedVideoPipeline, InterpError, patching, sweep
from cos_interp.interp.families import tiny
from cos_interp.interp.patches import Patch
from cos_interp.interp.patching import minimal_blocks, record, replay, restart

SITES = {"hook_resid_post": "", "hook_attn_out": "attn1", "hook_cross_attn_out": "attn2", "hook_mlp_out": "ffn"}
STEPS, LAYERS = 4, 3


def hand_patched(pipe, call, step, layer, site, branches, value, mask):
    """The patch by plain torch hooks: at the right calls, replace the module's output on the masked tokens."""
    count = [0]
    branch_order = ("cond", "uncond") if call["guidance_scale"] > 1 else ("cond",)

    def hook(module, args, output):
        at, branch = divmod(count[0], len(branch_order))
        count[0] += 1
        if at != step or branch_order[branch] not in branches:
            return None
        return torch.where(mask.flatten()[None, :, None], value[branch_order[branch]], output)

    experts = [e for e in (pipe.transformer, getattr(pipe, "transformer_2", None)) if e is not None]
    handles = [e.blocks[layer].get_submodule(SITES[site]).register_forward_hook(hook) for e in experts]
    out = plain(pipe, call, seed=0)
    for handle in handles:
        handle.remove()
    return out


@pytest.mark.parametrize("scheduler", ["euler", "unipc"])
@pytest.mark.parametrize("family", FAMILIES)
def test_patches_equal_hand_written_hooks(family, scheduler):
    draw = random.Random(f"{family} {scheduler}")
    call = tiny_call(family, guidance=draw.choice([1.0, 4.0]), steps=STEPS)
    pipe = build_tiny(family, scheduler)
    model = HookedVideoPipeline.from_pipeline(pipe)
    names = [f"blocks.*.{s}" for s in SITES]
    target, donor = record(model, names, seed=0, **call), record(model, names, seed=1, **call)
    shape = target.cache["blocks.0.hook_mlp_out", 0].shape[1:4]
    for _ in range(6):
        step, layer, site = draw.randrange(STEPS), draw.randrange(LAYERS), draw.choice(list(SITES))
        branches = draw.choice([("cond",), ("uncond",), ("cond", "uncond")]) if call["guidance_scale"] > 1 else ("cond",)
        mask = torch.rand(shape, generator=torch.Generator().manual_seed(draw.randrange(99))) < 0.6
        name = f"blocks.{layer}.{site}"
        patch = Patch(name, (step,), donor.donor(name), branches, mask)
        before = model.block_calls
        found = replay(model, target, [patch])
        assert model.block_calls - before == minimal_blocks(model, target, patch)
        value = {b: donor.cache[name, step, b].flatten(1, 3) for b in branches}
        fresh = build_tiny(family, scheduler)
        expected = hand_patched(fresh, call, step, layer, site, branches, value, mask)
        assert torch.equal(found, expected), (step, name, branches)


@pytest.mark.parametrize("scheduler", ["euler", "unipc"])
def test_self_patch_is_exactly_nothing_and_whole_x_t_is_exactly_everything(scheduler):
    call = tiny_call("wan22-i2v", steps=STEPS)
    model = HookedVideoPipeline.from_pipeline(build_tiny("wan22-i2v", scheduler))
    sites = ["blocks.*.attn.hook_z", "blocks.*.hook_resid_pre", "blocks.*.hook_resid_mid"]
    target, donor = record(model, sites, seed=0, **call), record(model, sites, seed=1, **call)
    for step in range(STEPS):
        for site in ("hook_resid_post", "attn.hook_z", "hook_resid_pre", "hook_resid_mid"):
            name = f"blocks.{step % LAYERS}.{site}"
            patch = Patch(name, (step,), target.donor(name), target.run.branches)
            assert torch.equal(replay(model, target, [patch]), target.run.latents)
        whole = replay(model, target, [Patch("hook_x_t", (step,), donor.donor("hook_x_t"))])
        if scheduler == "euler":  # UniPC also carries its history, which x_t does not hold
            assert torch.equal(whole, donor.run.latents)


@pytest.mark.parametrize("family", ["wan21-t2v", "wan22-i2v"])
def test_all_of_resid_pre_of_block_0_in_both_branches_is_the_step_of_the_donor(family):
    """With everything else equal, block 0's input is all a call sees besides the time: the call's output is the donor's."""
    call = tiny_call(family, steps=STEPS)
    model = HookedVideoPipeline.from_pipeline(build_tiny(family))
    name = "blocks.0.hook_resid_pre"
    target, donor = record(model, [name], seed=0, **call), record(model, [name], seed=1, **call)
    k = STEPS - 1
    patched = replay(model, target, [Patch(name, (k,), donor.donor(name), target.run.branches)])
    expected = target.run.x_t[k] - target.run.sigmas[k] * donor.run.v[k]  # the last Euler step goes to sigma 0
    torch.testing.assert_close(patched, expected, atol=1e-5, rtol=1e-5)


def test_spans_of_steps_and_batches_of_rows():
    call = tiny_call("wan21-t2v", steps=STEPS)
    model = HookedVideoPipeline.from_pipeline(build_tiny("wan21-t2v"))
    target, donor = record(model, seed=0, **call), record(model, seed=1, **call)
    names = [f"blocks.{i}.hook_resid_post" for i in range(LAYERS)]
    patches = [Patch(n, (1, 2, 3), donor.donor(n), ("cond",)) for n in names]
    alone = torch.cat([replay(model, target, [p]) for p in patches])
    together = replay(model, target, patches)
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-4)
    for patch, found in zip(patches, alone):
        hooks = [(f"{patch.site} @ step=1:4, branch=cond", lambda act, hook: donor.cache[hook.name, hook.step])]
        expected = model.run_with_hooks(fwd_hooks=hooks, seed=0, **call).latents
        assert torch.equal(found[None], expected)
    last = Patch(names[-1], (3,), donor.donor(names[-1]), ("cond", "uncond"))
    before = model.block_calls
    replay(model, target, [last])
    assert model.block_calls == before  # the last block of the last step: nothing is left to run


def test_heads_are_patched_alone():
    call = tiny_call("wan21-t2v", guidance=1.0, steps=STEPS)
    model = HookedVideoPipeline.from_pipeline(build_tiny("wan21-t2v"))
    name = "blocks.1.attn.hook_z"
    target, donor = record(model, [name], seed=0, **call), record(model, [name], seed=1, **call)
    found = replay(model, target, [Patch(name, (2,), donor.donor(name), heads=(1,))])
    hooks = [(f"{name} @ step=2, head=1", lambda act, hook: donor.cache[name, 2][..., 1:2, :])]
    assert torch.equal(found, model.run_with_hooks(fwd_hooks=hooks, seed=0, **call).latents)


CHANGES = {
    "one weight": lambda pipe: pipe.transformer.blocks[1].ffn.net[0].proj.weight.data[1, 1].add_(5),
    "a buffer": lambda pipe: pipe.transformer.rope.freqs_cos.mul_(0.3),
    "an epsilon": lambda pipe: setattr(pipe.transformer.blocks[0].norm1, "eps", 0.1),
    "a forward": lambda pipe: setattr(pipe.transformer.blocks[0], "forward", lambda *a, **k: a[0]),
    "the boundary of two experts": lambda pipe: pipe.register_to_config(boundary_ratio=0.1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_replay_on_another_model_than_the_recorded_one_is_refused(change):
    """Donor and target are one recording, so that any difference would be one of the model."""
    model, site = HookedVideoPipeline.from_pipeline(tiny.build("wan2.2")), "blocks.0.hook_resid_post"
    made = record(model, **tiny.call("wan2.2", steps=3) | {"seed": 0})
    patch = Patch(site, (1,), made.donor(site), branches=made.run.branches[:1])
    assert torch.equal(replay(model, made, patch), made.run.latents)
    CHANGES[change](model.pipe)
    with pytest.raises(InterpError, match="was recorded with another model"):
        replay(model, made, patch)


def test_a_grid_holds_the_model_against_its_recording_once_and_refuses_a_changed_one(monkeypatch):
    model, site = HookedVideoPipeline.from_pipeline(tiny.build("wan2.2")), "hook_resid_post"
    made = record(model, **tiny.call("wan2.2", steps=2) | {"seed": 0})
    looks, glance = [], patching.glance
    monkeypatch.setattr(patching, "glance", lambda *given: looks.append(1) or glance(*given))
    moved = lambda latents: float((latents - made.run.latents).abs().max())
    table = sweep(model, made, made, sites=site, metric=moved)
    assert len(looks) == 1 < len(table) and (table["value"] == 0).all()
    CHANGES["one weight"](model.pipe)
    with pytest.raises(InterpError, match="recorded with another model"):
        sweep(model, made, made, sites=site, metric=moved)


def test_donors_and_states_are_floats():
    model, site = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1")), "blocks.0.hook_resid_post"
    made = record(model, **tiny.call("wan2.1", steps=2) | {"seed": 0})
    for wrong in (torch.complex64, torch.int64, torch.bool):
        donor = lambda step, branch, kind=wrong: made.donor(site)(step, branch).to(kind)
        with pytest.raises(InterpError, match=f"gave {wrong}"):
            replay(model, made, Patch(site, (1,), donor))
        with pytest.raises(InterpError, match="a restart of this run takes latents like its own"):
            restart(model, made, 1, made.run.x_t[1].to(wrong))
    for latents, batch in ((made.run.latents[0], 16), (made.run.latents[:0], 16), (made.run.latents.long(), 16)):
        with pytest.raises(InterpError, match=r"latents are floats \[batch, channel, frame, row, col\]"):
            model.decode(latents, batch)
    with pytest.raises(InterpError, match="batch=0"):
        model.decode(made.run.latents, 0)
    with pytest.raises(IndexError, match="step True was asked for; the run has steps 0 to 1"):
        made.run.decode(True)


def test_a_patched_block_is_not_run_again():
    model = HookedVideoPipeline.from_pipeline(build_tiny("wan21-t2v"))
    target = record(model, seed=0, **tiny_call("wan21-t2v", guidance=1.0, steps=STEPS))
    cells = torch.zeros(target.cache["blocks.0.hook_resid_post", 0].shape[1:4], dtype=torch.bool)
    cells[0, 0, 0] = True
    for layer in range(LAYERS):
        site, before = f"blocks.{layer}.hook_resid_post", model.block_calls
        replay(model, target, Patch(site, (STEPS - 1,), target.donor(site), tokens=cells))
        assert model.block_calls - before == LAYERS - layer - 1  # of the last step alone
