"""Recordings of which the residual streams of one step are in memory at a time: the same bits, within the budget."""

from __future__ import annotations

import pytest
import torch

from cos_interp.interp import HookedVideoPipeline, InterpError, Patch, record
from cos_interp.interp.errors import BudgetExceeded
from cos_interp.interp.families import tiny
from cos_interp.interp.patching import hold_step, minimal_blocks, replay
from cos_interp.interp.planning.first import first_latents

STEPS = 3
NAMES = ("wan2.2", "ltx", "ltx2", "cogvideox", "mochi", "hunyuan", "latte", "framepack", "cosmos1", "allegro", "sana-video")


@pytest.mark.parametrize("name", NAMES)
def test_patched_runs_are_those_of_the_whole_recording(name):
    model, call, site = HookedVideoPipeline.from_pipeline(tiny.build(name)), tiny.call(name, steps=STEPS), "hook_attn_out"
    whole = record(model, f"blocks.0.{site}", seed=0, **call)
    donor = record(model, f"blocks.*.{site}", seed=1, **call)
    budget = whole.cache.nbytes - 1
    lean = record(model, f"blocks.0.{site}", recompute=True, max_bytes=budget, seed=0, **call)
    assert len(lean.cache) == STEPS * len(lean.run.branches) and torch.equal(lean.run.latents, whole.run.latents)
    one = model.layers * len(lean.run.branches)
    for step in (1, 0, 1):
        for layer in (0, model.layers - 1):
            hook = f"blocks.{layer}.{site}"
            patch = Patch(hook, (step,), donor.donor(hook), lean.run.branches)
            before = model.block_calls
            hold_step(model, lean, step)
            assert model.block_calls - before == (one if layer == 0 else 0)
            assert lean.cache.nbytes <= budget
            before = model.block_calls
            assert torch.equal(replay(model, lean, patch), replay(model, whole, patch))
            assert model.block_calls - before == 2 * minimal_blocks(model, lean, patch) == 2 * minimal_blocks(model, whole, patch)
        for key in lean.passing:
            for branch in lean.run.branches:
                if (key, step, branch) in whole.cache:
                    assert torch.equal(lean.cache[key, step, branch], whole.cache[key, step, branch])
    assert {key[1] for key in lean.cache if key[0] in lean.passing} == {1}


def test_a_range_on_all_tokens_needs_the_first_step_of_the_target_alone():
    model, call = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1")), tiny.call("wan2.1", steps=STEPS)
    whole, donor = record(model, seed=0, **call), record(model, seed=1, **call)
    lean = record(model, recompute=True, max_bytes=whole.cache.nbytes - 1, seed=0, **call)
    assert not len(lean.cache)
    patch = Patch("blocks.1.hook_resid_post", (1, 2), donor.donor("blocks.1.hook_resid_post"), lean.run.branches)
    least = minimal_blocks(model, lean, patch)
    assert least == minimal_blocks(model, whole, patch) == 2 * 2
    assert torch.equal(replay(model, lean, patch), replay(model, whole, patch))


def test_what_does_not_fit_is_refused_before_the_first_call():
    model, call = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1")), tiny.call("wan2.1", steps=STEPS)
    whole = record(model, seed=0, **call)
    step, before = whole.cache.nbytes // STEPS, model.block_calls
    with pytest.raises(BudgetExceeded, match="pass a larger max_bytes"):
        record(model, max_bytes=step, seed=0, **call)
    with pytest.raises(BudgetExceeded, match=f"pass max_bytes={step} or more"):
        record(model, recompute=True, max_bytes=step - 1, seed=0, **call)
    with pytest.raises(BudgetExceeded, match="the budget is 1 B"):
        record(model, "blocks.*.hook_mlp_out", recompute=True, max_bytes=step + 1, seed=0, **call)
    assert first_latents(model, seed=0, **call).shape == whole.run.latents.shape
    assert model.block_calls == before
    lean = record(model, recompute=True, max_bytes=step, seed=0, **call)
    replay(model, lean, Patch("hook_x_t", (1,), whole.donor("hook_x_t")))
    with pytest.raises(InterpError, match=r"blocks.1.hook_mlp_out was not recorded: record it with record\(model, names="):
        lean.donor("blocks.1.hook_mlp_out")
    given = lean.donor("blocks.1.hook_resid_post")  # of one step at a time
    one, all_on = (Patch(given.site, steps, given, lean.run.branches) for steps in ((1,), (1, 2)))
    assert torch.equal(replay(model, lean, one), lean.run.latents)
    with pytest.raises(InterpError, match=r"wanted at the steps \[1, 2\] of a recording that keeps one step at a time"):
        replay(model, lean, all_on)
