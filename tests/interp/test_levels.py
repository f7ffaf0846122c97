"""Runs at noise levels of one's own: bit for bit the scheduler's where they are its own, and plain diffusers' elsewhere."""

from __future__ import annotations

import copy

import pytest
import torch

from cos_interp.interp import HookedVideoPipeline, InterpError, Patch, at_sigmas, record, replay
from cos_interp.interp.families import tiny
from tests.support import build_tiny, hooked_tiny, tiny_call

CALL = {k: v for k, v in tiny_call("wan21-t2v", guidance=1.0, steps=3).items() if k != "generator"} | {"seed": 0}
FLOWS = ("wan2.1", "wan2.2", "ltx", "hunyuan", "mochi")


@pytest.mark.parametrize("name", FLOWS)
def test_the_schedulers_own_levels_change_no_bit(name):
    model, call = HookedVideoPipeline.from_pretrained(f"tiny:{name}"), tiny.call(name, steps=3) | {"seed": 0}
    plain = model.run(**call)
    with at_sigmas(model, plain.sigmas):
        again = model.run(**call)
    assert torch.equal(again.latents, plain.latents) and again.timesteps == plain.timesteps
    other = [plain.sigmas[0], *(0.9 * sigma for sigma in plain.sigmas[1:])]
    with at_sigmas(model, other):
        moved = model.run(**call)
    assert moved.sigmas == pytest.approx(other, abs=1e-6) and not torch.equal(moved.latents, plain.latents)
    assert len(moved.calls) == len(plain.calls) and torch.equal(model.run(**call).latents, plain.latents)


def test_a_run_at_levels_of_ones_own_is_plain_diffusers():
    """The pipeline alone, whose scheduler is given levels that its shift turns into these."""
    levels = [1.0, 0.9, 0.2]
    with at_sigmas(model := hooked_tiny(), levels):
        found = model.run(**CALL)
    pipe = build_tiny("wan21-t2v")
    shift, original = pipe.scheduler.config.shift, pipe.scheduler.set_timesteps
    before = [s / (shift - (shift - 1) * s) for s in levels]
    pipe.scheduler.set_timesteps = lambda steps, device=None, **_: original(sigmas=before, device=device)
    given = {**model.defaults, **{k: v for k, v in CALL.items() if k != "seed"}}
    generator = torch.Generator("cpu").manual_seed(0)
    plain = pipe(**given, generator=generator, output_type="latent", return_dict=False)[0]
    torch.testing.assert_close(found.latents, plain, rtol=1e-5, atol=1e-5)
    assert found.timesteps == pytest.approx([1000 * level for level in levels])


def test_replays_and_further_runs_in_the_block_have_the_levels_too():
    model = hooked_tiny()
    with at_sigmas(model, [1.0, 0.5, 0.1]):
        recorded = record(model, **CALL)
        itself = Patch("blocks.1.hook_resid_post", (1,), recorded.donor("blocks.1.hook_resid_post"), ("cond",))
        assert torch.equal(replay(model, recorded, itself), recorded.run.latents)
        assert torch.equal(model.run(**CALL).latents, recorded.run.latents)
        copied = copy.deepcopy(model)
        assert torch.equal(copied.run(**CALL).latents, recorded.run.latents)
    assert "set_timesteps" not in vars(model.pipe.scheduler)
    assert not torch.equal(model.run(**CALL).latents, recorded.run.latents)
    with pytest.raises(InterpError, match="record it again"):
        replay(model, recorded, itself)


@pytest.mark.parametrize(
    "levels, said",
    [
        ([1.0, 0.5, 0.5], "that fall"),
        ([1.0, 0.5, 0.0], "above 0"),
        ([1.0], "two noise levels"),
        ([1.0, True, 0.2], "two noise levels"),
        ([1.0, 0.5], "2 noise levels for a run of 3 steps"),
        ([0.9, 0.5, 0.2], "begins in noise of level 1, not 0.9"),
    ],
)
def test_levels_that_do_not_fit_are_refused(levels, said):
    model = hooked_tiny()
    with pytest.raises(InterpError, match=said), at_sigmas(model, levels):
        model.run(**CALL)
    assert "set_timesteps" not in vars(model.pipe.scheduler)


def test_schedulers_without_such_levels_and_blocks_within_blocks_are_refused():
    with (
        pytest.raises(InterpError, match="samples no flow"),
        at_sigmas(HookedVideoPipeline.from_pretrained("tiny:cogvideox"), [1, 0.5]),
    ):
        pass
    model = hooked_tiny()
    with pytest.raises(InterpError, match="leave the other block"), at_sigmas(model, [1.0, 0.5]), at_sigmas(model, [1.0, 0.5]):
        pass
