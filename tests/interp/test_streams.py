"""Transformers with more than video and text: LTX-2's audio, which is denoised beside the video, and FramePack's history."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch

from cos_interp.interp import HookedVideoPipeline, InterpError
from cos_interp.interp.check.proof import check_adapter, small_call
from cos_interp.interp.families import tiny
from cos_interp.interp.patches import Patch
from cos_interp.interp.patching import record, replay, restart


def hooked(name, scheduler=None):
    return HookedVideoPipeline.from_pipeline(tiny.build(name, scheduler))


def block_outputs(pipe, call, path, seed=0):
    """What PyTorch's own hook sees at a block in the untouched pipeline, by forward; and what the pipeline returned."""
    seen = []
    module = pipe.transformer.get_submodule(path)
    handle = module.register_forward_hook(lambda m, a, out: seen.append(tuple(stream.clone() for stream in out)) and None)
    out = pipe(**call, generator=torch.Generator().manual_seed(seed), output_type="latent", return_dict=False)
    handle.remove()
    return seen, out


@pytest.mark.parametrize("name", ["ltx2", "framepack"])
def test_every_name_is_proven(name):
    report = check_adapter(tiny.build(name), **tiny.call(name, steps=2))
    assert report.passed, str(report)


@pytest.mark.parametrize("name", ["ltx2", "ltx2-i2v"])
def test_ltx2_against_hand_written_hooks(name):
    """Blocks return (video, audio), both branches in one forward; the pipeline scales its latents before it returns them."""
    call = tiny.call(name, steps=3, size=64)
    seen, (video, audio) = block_outputs(tiny.build(name), call, "transformer_blocks.1")
    model = hooked(name)
    run, cache = model.run_with_cache(names=["blocks.1.hook_resid_post", "blocks.1.hook_resid_post_audio"], seed=0, **call)
    assert len(seen) == run.steps == len(run.timesteps) == 3  # the audio's own scheduler steps do not count
    for step, streams in enumerate(seen):
        for place, branch in enumerate(("uncond", "cond")):
            kept = cache["blocks.1.hook_resid_post", step, branch]
            assert kept.shape == (1, 3, 8, 8, 16) and torch.equal(kept.flatten(1, 3), streams[0][place : place + 1])
            assert torch.equal(cache["blocks.1.hook_resid_post_audio", step, branch], streams[1][place : place + 1])
    assert torch.equal(model.adapter.returned(model.pipe, run.latents), video) and torch.equal(run.beside[0], audio)
    after = run.x_t[-1] - run.sigmas[-1] * run.v[-1]  # the last Euler step ends at sigma 0
    torch.testing.assert_close(run.latents[:, :, 1:], after[:, :, 1:])


@pytest.mark.parametrize("scheduler", [None, "unipc"])
def test_ltx2_replays_restore_the_audio(scheduler):
    made = diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True) if scheduler else None
    model, call = hooked("ltx2", made), tiny.call("ltx2", steps=3)
    target, donor = record(model, seed=0, **call), record(model, seed=1, **call)
    for site in ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post_audio"):
        for step in range(3):
            own = Patch(site, (step,), target.donor(site), ("cond", "uncond"))
            assert torch.equal(replay(model, target, [own]), target.run.latents)
        edit = lambda act, hook: donor.cache[hook.name, hook.step]
        full = model.run_with_hooks(fwd_hooks=[(f"{site} @ step=1, branch=cond", edit)], seed=0, **call)
        assert torch.equal(replay(model, target, [Patch(site, (1,), donor.donor(site))]), full.latents)
        assert not torch.equal(full.latents, target.run.latents)  # in the last block the audio reaches the video a step later
    assert torch.equal(restart(model, target.run, 2, target.run.x_t[2]).latents, target.run.latents)


def test_ltx2_asks_for_guidance_that_can_be_followed():
    model, call = hooked("ltx2"), tiny.call("ltx2", steps=2)
    with pytest.raises(InterpError, match="stg_scale=0, audio_stg_scale=0, modality_scale=1, audio_modality_scale=1"):
        model.run(seed=0, **{**call, "modality_scale": 3.0})
    mine = small_call(model.pipe, steps=2, height=32, width=32, frames=9)
    assert model.run(seed=0, **mine, max_sequence_length=12).steps == 2


def test_ltx2_conditions_keep_to_the_first_frame():
    """A condition there replaces its latents; those at later frames are appended as tokens."""
    from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

    pipe = diffusers.LTX2ConditionPipeline(**{k: v for k, v in tiny.build("ltx2").components.items() if v is not None})
    model, call = HookedVideoPipeline.from_pipeline(pipe), tiny.call("ltx2", steps=2)
    given = lambda index: {"conditions": [LTX2VideoCondition(frames=tiny.image(32), index=index, strength=1.0)]}
    run = model.run(seed=0, **call, **given(0))
    torch.testing.assert_close(run.x_t[1][:, :, 0], run.x_t[0][:, :, 0])
    with pytest.raises(InterpError, match="packs 64 tokens, a video of 3 x 4 x 4 latent cells has 48"):
        model.run(seed=0, **call, **given(1))


def test_framepack_against_hand_written_hooks():
    """History tokens (patches of 1x2x2, 2x4x4 and 4x8x8 cells) come first on the axis of the video's."""
    call = tiny.call("framepack", steps=2, size=48)
    names = [f"blocks.{layer}.hook_resid_post{end}" for layer in (1, 2) for end in ("", "_history")]
    run, cache = hooked("framepack").run_with_cache(names=names, seed=0, **call)
    history = 2 * 9 + 4 + 4
    for layer, path in ((1, "transformer_blocks.1"), (2, "single_transformer_blocks.0")):
        seen, out = block_outputs(tiny.build("framepack"), call, path)
        for forward, (hidden, _) in enumerate(seen):
            at = forward // 2, ("cond", "uncond")[forward % 2]
            kept = cache[(f"blocks.{layer}.hook_resid_post", *at)]
            assert kept.shape == (1, 3, 3, 3, 20) and torch.equal(kept.flatten(1, 3), hidden[:, history:])
            assert torch.equal(cache[(f"blocks.{layer}.hook_resid_post_history", *at)], hidden[:, :history])
    assert torch.equal(torch.cat([run.lead, run.latents], dim=2), out[0][0])  # the picture, then the section


@pytest.mark.parametrize("name", ["framepack", "wan-vace"])
def test_rows_run_one_by_one_where_the_pipeline_makes_one_video(name):
    model, call = hooked(name), tiny.call(name, steps=2)
    target, donor = record(model, seed=0, **call), record(model, seed=1, **call)
    patches = [Patch(site, (1,), donor.donor(site)) for site in ("hook_x_t", "blocks.0.hook_resid_post")]
    together = replay(model, target, patches)
    for row, patch in enumerate(patches):
        assert torch.equal(together[row : row + 1], replay(model, target, [patch]))
    assert not torch.equal(together[:1], together[1:])


def test_framepack_is_refused_before_it_runs_more_than_one_section():
    model, call = hooked("framepack"), tiny.call("framepack", steps=2)
    with pytest.raises(InterpError, match=r"num_frames=10 makes 2 sections.*give num_frames=9"):
        model.run(seed=0, **call | {"num_frames": 10})
    assert model.block_calls == 0


@pytest.mark.parametrize("name", ["ltx2", "framepack"])
def test_decoding_is_the_pipelines_own(name):
    model, call = hooked(name), tiny.call(name, steps=2)
    mine = model.run(seed=0, **call).decode()
    frames = np.asarray(model.pipe(**model.call_arguments({**call, "seed": 0}), output_type="np", return_dict=False)[0])
    assert np.abs(np.round(frames * 255).reshape(mine.shape) - mine).max() <= 1
