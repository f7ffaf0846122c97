"""Several patches in one row, edits and taps, against plain forward hooks: bit for bit."""

from __future__ import annotations

import pytest
import torch
from support import build_tiny, plain, tiny_call

from cos_interp.interp import HookedVideoPipeline, InterpError
from cos_interp.interp.editing import Edit, Tap
from cos_interp.interp.patches import Patch
from cos_interp.interp.patching import minimal_blocks, record, replay

MODULES = {"hook_attn_out": "attn1", "hook_cross_attn_out": "attn2", "hook_mlp_out": "ffn"}
CALL = tiny_call("wan21-t2v", guidance=1.0, steps=3)


@pytest.fixture(scope="module")
def runs():
    model = HookedVideoPipeline.from_pipeline(build_tiny("wan21-t2v"))
    names = [f"blocks.*.{site}" for site in MODULES]
    return model, record(model, names, seed=0, **CALL), record(model, names, seed=1, **CALL)


def by_hand(edits):
    """The final latents with plain hooks: ``edits`` are (layer, site, steps, function of the output and the step)."""
    pipe = build_tiny("wan21-t2v")
    for layer, site, steps, function in edits:
        count = [0]

        def hook(module, args, output, count=count, steps=steps, function=function):
            count[0] += 1
            return function(output, count[0] - 1) if count[0] - 1 in steps else None

        pipe.transformer.blocks[layer].get_submodule(MODULES[site]).register_forward_hook(hook)
    return plain(pipe, CALL, seed=0)


def test_a_row_of_several_patches_equals_plain_hooks(runs):
    model, target, donor = runs
    mask = torch.zeros(target.cache["blocks.0.hook_mlp_out", 0].shape[1:4], dtype=torch.bool)
    mask[1:, 0] = True
    asked = [(2, "hook_attn_out", (0, 1)), (1, "hook_mlp_out", (1, 2)), (0, "hook_cross_attn_out", (2,))]
    row = [Patch(f"blocks.{n}.{s}", steps, donor.donor(f"blocks.{n}.{s}"), tokens=mask) for n, s, steps in asked]
    value = lambda n, s, step: donor.cache[f"blocks.{n}.{s}", step, "cond"].flatten(1, 3)
    put = lambda n, s: lambda output, step: torch.where(mask.flatten()[None, :, None], value(n, s, step), output)
    before = model.block_calls
    found = replay(model, target, [row])
    assert model.block_calls - before == minimal_blocks(model, target, row) == 3 - 2 + 2 * 3  # from block 2 of the first step
    assert torch.equal(found, by_hand([(n, s, steps, put(n, s)) for n, s, steps in asked]))


def test_later_patches_of_a_site_act_on_what_earlier_ones_left(runs):
    model, target, donor = runs
    site = "blocks.1.hook_mlp_out"
    first = Patch(site, (0, 1), donor.donor(site))
    twice = Edit(site, (1,), lambda act, step, branch: 2 * act)
    value = lambda step: donor.cache[site, step, "cond"].flatten(1, 3)
    hand = by_hand([(1, "hook_mlp_out", (0, 1), lambda output, step: (2 if step == 1 else 1) * value(step))])
    assert torch.equal(replay(model, target, [[first, twice]]), hand)
    assert not torch.equal(replay(model, target, [[twice, first]]), hand)


def test_rows_of_one_batch_may_have_different_numbers_of_patches(runs):
    model, target, donor = runs
    sites = ["blocks.0.hook_attn_out", "blocks.2.hook_mlp_out"]
    patches = [Patch(site, "0:3", donor.donor(site)) for site in sites]
    rows = [patches, patches[:1], patches[1]]
    together = replay(model, target, rows)
    for place, row in enumerate(rows):
        torch.testing.assert_close(together[place : place + 1], replay(model, target, [row]), rtol=1e-4, atol=1e-5)


def test_a_tap_keeps_what_comes_by_and_changes_nothing(runs):
    model, target, _ = runs
    tap = Tap()
    assert torch.equal(replay(model, target, [[tap.patch("blocks.1.hook_mlp_out", "1:3", ("cond",))]]), target.run.latents)
    assert set(tap.held) == {(1, "cond"), (2, "cond")}
    assert torch.equal(tap.donor(2, "cond"), target.cache["blocks.1.hook_mlp_out", 2, "cond"])


def test_latents_and_activations_in_one_row(runs):
    """The target's own states held in a run whose first step is the donor's by its last block."""
    model, target, donor = runs
    site = "blocks.2.hook_resid_post"
    moved = Patch(site, (0,), donor.donor(site))
    held = Patch("hook_x_t", (1,), target.donor("hook_x_t"))
    assert torch.equal(replay(model, target, [[moved, held]]), target.run.latents)  # Euler has no history


def test_what_is_no_row_is_said(runs):
    model, target, donor = runs
    one = Patch("blocks.0.hook_attn_out", (0,), donor.donor("blocks.0.hook_attn_out"))
    with pytest.raises(InterpError, match="no patch was given"):
        replay(model, target, [[one], []])
    with pytest.raises(InterpError, match="replay takes"):
        replay(model, target, [[one, "two"]])
    with pytest.raises(InterpError, match="start at one step"):
        replay(model, target, [[one], [Patch(one.site, (1,), one.donor)]])
