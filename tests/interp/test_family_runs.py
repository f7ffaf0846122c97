"""Guidance, patches, schedulers, decoding and refusals on tiny pipelines of many families."""

from __future__ import annotations

import json

import diffusers
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cos_interp.interp import HookedVideoPipeline, InterpError
from cos_interp.interp.check.proof import check_adapter
from cos_interp.interp.families import adapter_for, register, tiny
from cos_interp.interp.families.adapter import NoAdapter, Stack
from cos_interp.interp.families.hunyuan import EMBED, HunyuanVideo
from cos_interp.interp.families.shapes import joint_block, parallel_block
from cos_interp.interp.patches import Patch
from cos_interp.interp.patching import record, replay


def hooked(name, scheduler=None):
    return HookedVideoPipeline.from_pipeline(tiny.build(name, scheduler))


@pytest.mark.parametrize("name", ["ltx", "cogvideox", "mochi", "latte"])
def test_an_edit_of_one_branch_leaves_the_other_alone(name):
    call, site = tiny.call(name, steps=2), "blocks.0.hook_mlp_out"
    model = hooked(name)
    _, base = model.run_with_cache(names="hook_model_out", seed=0, **call)
    with model.hooks([(f"{site} @ branch=uncond", lambda act, hook: act + 1)]):
        _, edited = model.run_with_cache(names="hook_model_out", seed=0, **call)
    assert torch.equal(base["hook_model_out", 0, "cond"], edited["hook_model_out", 0, "cond"])
    assert not torch.equal(base["hook_model_out", 0, "uncond"], edited["hook_model_out", 0, "uncond"])


@pytest.mark.parametrize("name", ["ltx", "cogvideox", "mochi", "hunyuan", "latte"])
def test_batches_of_patches_agree_with_single_ones(name):
    call, model = tiny.call(name, steps=3), hooked(name)
    target, donor = record(model, seed=0, **call), record(model, seed=1, **call)
    sites = ["hook_x_t", "blocks.0.hook_resid_post", f"blocks.{model.layers - 1}.hook_resid_post"]
    patches = [Patch(site, (1,), donor.donor(site)) for site in sites]
    together = replay(model, target, patches)
    for row, patch in enumerate(patches):
        torch.testing.assert_close(together[row : row + 1], replay(model, target, [patch]), atol=1e-4, rtol=1e-3)
    assert torch.equal(replay(model, target, [Patch(sites[1], (1,), target.donor(sites[1]))]), target.run.latents)


SCHEDULERS = {
    "euler": ("wan2.1", lambda: None),
    "unipc": ("ltx", lambda: diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)),
    "dpm": ("sana-video", lambda: None),
    "ddim": ("latte", lambda: None),
    "ancestral": ("allegro", lambda: None),
    "cogvideox dpm": ("cogvideox-5b", lambda: None),
    "edm": ("cosmos1", lambda: None),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_replays_are_exact_on_every_scheduler(scheduler):
    name, build = SCHEDULERS[scheduler]
    call, model = tiny.call(name, steps=4), hooked(name, build())
    target, donor = record(model, seed=0, **call), record(model, seed=1, **call)
    for step in range(4):
        own = Patch("blocks.1.hook_resid_post", (step,), target.donor("blocks.1.hook_resid_post"), ("cond", "uncond"))
        assert torch.equal(replay(model, target, [own]), target.run.latents)
        site = "blocks.1.hook_mlp_out"
        _, mine = model.run_with_cache(names=site, steps=step, seed=1, **call)
        found = replay(model, target, [Patch(site, (step,), lambda k, b, mine=mine, site=site: mine[site, k, b])])
        edit = lambda act, hook, mine=mine: mine[hook.name, hook.step]
        hooks = [(f"{site} @ step={step}, branch=cond", edit)]
        assert torch.equal(found, model.run_with_hooks(fwd_hooks=hooks, seed=0, **call).latents)
    assert donor.run.latents.shape == target.run.latents.shape


def test_noise_without_a_seed_is_refused_at_replay():
    model = hooked("allegro")
    target = record(model, **tiny.call("allegro", steps=2))
    with pytest.raises(InterpError, match="seed"):
        replay(model, target, [Patch("blocks.0.hook_resid_post", (1,), target.donor("blocks.0.hook_resid_post"))])


@pytest.mark.parametrize("name", ["ltx", "latte", "cosmos1", "cogvideox", "mochi", "hunyuan", "kandinsky5", "motif"])
def test_decoding_is_the_pipelines_own(name):
    model, call = hooked(name), tiny.call(name, steps=2)
    mine = model.run(seed=0, **call).decode()
    frames = np.asarray(model.pipe(**model.call_arguments({**call, "seed": 0}), output_type="np", return_dict=False)[0])
    assert np.abs(np.round(frames * 255).reshape(mine.shape) - mine).max() <= 1


@pytest.mark.parametrize("name", ["ltx-i2v", "kandinsky5-i2v", "hunyuan-i2v"])
def test_a_given_first_frame_stays_in_x_t_and_x0hat(name):
    run = hooked(name).run(seed=0, **tiny.call(name, steps=3))
    first = run.x0hat[0][:, :, :1]
    for step in range(1, 3):
        torch.testing.assert_close(run.x_t[step][:, :, :1], first)
        torch.testing.assert_close(run.x0hat[step][:, :, :1], first)
        assert run.x_t[step].shape == run.x_t[0].shape


def test_video_to_video_counts_the_steps_that_run():
    model, call = hooked("cogvideox-v2v"), tiny.call("cogvideox-v2v", steps=5)
    run = model.run(seed=0, **call)
    assert run.steps == 4 and run.timesteps == [c.timestep for c in run.calls if c.branch == "cond"]
    seen = []
    model.run_with_hooks(fwd_hooks=[("hook_x_t @ step=-1", lambda act, hook: seen.append(hook.step))], seed=0, **call)
    assert seen == [3]


def test_refusals_say_what_and_why():
    helios = type("HeliosTransformer3DModel", (torch.nn.Module,), {})()
    with pytest.raises(NoAdapter, match="history"):
        adapter_for(helios)
    with pytest.raises(NoAdapter, match=r"adding-a-family\.md"):
        adapter_for(torch.nn.Linear(1, 1))
    pipe = tiny.build("kandinsky5")
    pipe.transformer.register_to_config(attention_type="nabla")
    with pytest.raises(InterpError, match="reorders"):
        HookedVideoPipeline.from_pipeline(pipe)
    from cos_interp.interp.families.tiny.wan import skyreels_forcing

    with pytest.raises(InterpError, match="every latent frame"):
        HookedVideoPipeline.from_pipeline(skyreels_forcing())
    pipe = tiny.build("cogvideox")
    pipe.transformer.transformer_blocks[0].compile(backend="eager")
    with pytest.raises(InterpError, match="compiled"):
        HookedVideoPipeline.from_pipeline(pipe)
    pipe = tiny.build("cogvideox")
    pipe.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(InterpError, match="disable_cache"):
        HookedVideoPipeline.from_pipeline(pipe)
    with pytest.raises(InterpError, match="several model calls"):
        hooked("wan2.1", diffusers.FlowMatchHeunDiscreteScheduler()).run(**tiny.call("wan2.1"))
    with pytest.raises(InterpError, match="no tiny pipeline"):
        tiny.build("nothing")


def test_names_that_would_change_nothing_are_not_offered():
    names = hooked("cogvideox").hook_names
    assert "blocks.1.hook_resid_post_text" in names and "blocks.2.hook_resid_post_text" not in names
    assert "blocks.2.attn.hook_k_text" in names  # the video still reads the text's keys
    assert not any(name.endswith("attn.hook_pattern") and ".attn." in name for name in hooked("sana-video").hook_names)


def test_a_saved_pipeline_loads_and_runs_the_same(tmp_path):
    tiny.build("cogvideox").save_pretrained(tmp_path)
    loaded, call = HookedVideoPipeline.from_pretrained(tmp_path), tiny.call("cogvideox", steps=2)
    assert loaded.adapter.family == "CogVideoX"
    assert torch.equal(loaded.run(seed=0, **call).latents, hooked("cogvideox").run(seed=0, **call).latents)


def test_half_precision_and_batches_are_proven_too():
    pipe = tiny.build("cogvideox").to(torch.bfloat16)
    report = check_adapter(pipe, **tiny.call("cogvideox", steps=2))
    assert report.passed, str(report)
    call = tiny.call("mochi", steps=2) | {"prompt": ["a red ball", "move the box below"], "negative_prompt": ["a", "a"]}
    report = check_adapter(tiny.build("mochi"), seed=[3, 4], **call)
    assert report.passed, str(report)


def wrong_hunyuan(**block):
    """The report on a HunyuanVideo whose dual-stream blocks are described wrongly."""
    dual = joint_block(attn="attn", **block)
    stacks = (Stack("transformer_blocks", dual), Stack("single_transformer_blocks", parallel_block()))
    try:
        register(type("Wrong", (HunyuanVideo,), {"stacks": stacks, "ends": (EMBED,)}))
        return check_adapter(tiny.build("hunyuan"), **tiny.call("hunyuan", steps=2))
    finally:
        register(HunyuanVideo)


def test_a_wrong_adapter_is_found_out():
    report = wrong_hunyuan(text="first")  # it is last
    failed = {check.title: " ".join(check.problems) for check in report.checks if not check.passed}
    assert "blocks.0.attn.hook_q: tokens" in failed["one perturbed latent cell moves its token and no other"]
    with pytest.raises(InterpError, match="order of execution"):
        wrong_hunyuan(mid="hidden_states_1")  # the stream after the MLP
    with pytest.raises(InterpError, match="has no nothing_0"):
        wrong_hunyuan(mid="nothing_0")


def test_the_models_command_lists_and_checks():
    from cos_interp import cli

    listed = CliRunner().invoke(cli.app, ["models", "list", "--json"])
    found = json.loads(listed.stdout)
    assert {row["family"] for row in found["supported"]} >= {"Wan", "CogVideoX", "Latte"} and "ltx" in found["tiny"]
    checked = CliRunner().invoke(cli.app, ["models", "check", "tiny:latte", "--json"])
    assert checked.exit_code == 0 and json.loads(checked.stdout)["passed"]
