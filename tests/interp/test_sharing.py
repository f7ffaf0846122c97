"""Ranges that overwrite the whole residual stream: bit for bit what plain forward hooks give, and no block twice."""

from __future__ import annotations

import contextlib

import pytest
import torch

from cos_interp.interp import HookedVideoPipeline, Patch, record, sweep
from cos_interp.interp.families import tiny
from cos_interp.interp.families.tiny.wan import transformer
from cos_interp.interp.patching import minimal_blocks, replay
from cos_interp.interp.sharing import Shared, is_all

STEPS = 3
NEVER = {"ltx2", "ltx2-i2v", "ltx2-condition"}  # audio stands beside the video after every block, the last one too


@contextlib.contextmanager
def hooked(model, layer, function):
    """A plain forward hook on a block of every expert."""
    blocks = [engine.module.get_submodule(engine.blocks[layer]) for engine in model.engines.values()]
    handles = [block.register_forward_hook(function) for block in blocks]
    yield
    for handle in handles:
        handle.remove()


def outputs(model, layer, **call):
    """What a block returned in every forward of a run."""
    kept = []
    copied = lambda out: tuple(part.clone() for part in out) if isinstance(out, tuple) else out.clone()
    with hooked(model, layer, lambda block, args, out: kept.append(copied(out))):
        model.run(**call)
    return kept


def overwritten(model, layer, given, first, **call):
    """The final latents of a run in which a block returns what was given, from a forward on."""
    count = iter(range(len(given)))

    def hook(block, args, out):
        return given[n] if (n := next(count)) >= first else None

    with hooked(model, layer, hook):
        return model.run(**call).latents


@pytest.mark.parametrize("name", sorted(set(tiny.TINY) - NEVER))
def test_a_range_equals_plain_hooks_and_what_follows_is_run_once(name):
    model, call = HookedVideoPipeline.from_pipeline(tiny.build(name)), tiny.call(name, steps=STEPS)
    engine = next(iter(model.engines.values()))
    layer = next(n for n in range(model.layers) if is_all(engine, n))
    site = f"blocks.{layer}.hook_resid_post"
    target, donor = record(model, seed=0, **call), record(model, seed=1, **call)
    theirs, given = outputs(model, layer, seed=1, **call), donor.donor(site)
    shared, done = Shared(), set()
    for first in range(2):
        patch = Patch(site, slice(first, None), given, target.run.branches)
        before, saved = model.block_calls, shared.saved
        found = replay(model, target, patch, shared)
        ran = model.block_calls - before
        assert torch.equal(found, overwritten(model, layer, theirs, first * len(theirs) // target.run.steps, seed=0, **call))
        assert not torch.equal(found, target.run.latents)
        alone = minimal_blocks(model, target, patch)
        assert ran == minimal_blocks(model, target, patch, done) == alone - (shared.saved - saved)
        assert alone == (target.run.steps - first) * len(target.run.branches) * (model.layers - layer - 1)
    again = model.layers - layer > 1 and not engine.adapter.rereads(engine.module, layer)
    assert (shared.saved > 0, ran == 0) == (again, again or model.layers - layer == 1)


def test_a_grid_of_8_steps_and_8_layers_takes_224_blocks_instead_of_2016():
    pipe = tiny.build("wan2.1")
    pipe.transformer = transformer("WanTransformer3DModel", 0, num_layers=8)
    model, call = HookedVideoPipeline.from_pipeline(pipe), tiny.call("wan2.1", guided=False, steps=8)
    target, donor = record(model, seed=0, **call), record(model, seed=1, **call)
    ran, seen = [], {}
    for block in pipe.transformer.blocks:  # inside it: the hooks of a block run where it is skipped
        block.ffn.register_forward_hook(lambda module, args, out: ran.append(len(out)))
    table = sweep(model, target, donor, span="from", metric=lambda latents: float(seen.setdefault(len(seen), latents).sum()))
    assert len(table) == 64 and sum(ran) == 224
    assert sum((7 - step) * 8 + 7 - layer for step in range(8) for layer in range(8)) == 2016  # what follows each patch
    for step, layer in ((0, 0), (3, 5), (7, 7)):
        theirs = outputs(model, layer, seed=1, **call)
        found = seen[step * 8 + layer]  # cells are measured step by step
        assert torch.equal(found, overwritten(model, layer, theirs, step, seed=0, **call))


def test_what_a_patch_of_some_tokens_or_of_one_branch_leaves_is_run():
    model, call = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1")), tiny.call("wan2.1", steps=STEPS)
    target, donor = record(model, seed=0, **call), record(model, seed=1, **call)
    site, shared = "blocks.1.hook_resid_post", Shared()
    some = torch.ones(model.token_grid(target.run.latents).shape, dtype=torch.bool)
    some[0, 0, 0] = False
    given = donor.donor(site)
    for changed, blocks in (
        ({"tokens": some}, 2 * 1 + 2 * 2 * 3),
        ({"branches": ("cond",)}, 1 + 2 * (1 + 3)),  # the other branch sees another latent
        ({}, 3 * 2 * 1),
    ):
        patch = Patch(**{"site": site, "steps": (0, 1, 2), "donor": given, "branches": ("cond", "uncond"), **changed})
        before = model.block_calls
        found = replay(model, target, patch, shared)
        mask = torch.ones_like(some) if patch.tokens is None else some
        put = lambda act, hook, mask=mask: torch.where(mask[None, ..., None], given(hook.step, hook.branch), act)
        hooks = [(f"{site} @ step=0:3{', branch=cond' if patch.branches == ('cond',) else ''}", put)]
        assert torch.equal(found, model.run_with_hooks(fwd_hooks=hooks, seed=0, **call).latents)
        assert minimal_blocks(model, target, patch) == blocks
        assert before + blocks == model.block_calls - 2 * STEPS * 3 + shared.saved


def test_patches_of_one_row_that_are_overwritten_leave_nothing_and_later_ones_act():
    model, call = HookedVideoPipeline.from_pipeline(tiny.build("ltx")), tiny.call("ltx", steps=STEPS)
    names = ["blocks.*.hook_attn_out", "blocks.*.hook_mlp_out"]
    target, donor = record(model, names, seed=0, **call), record(model, names, seed=1, **call)
    given = lambda site: Patch(site, (1, 2), donor.donor(site), ("cond", "uncond"))
    before, state, after = (given(f"blocks.{s}") for s in ("0.hook_mlp_out", "1.hook_resid_post", "2.hook_attn_out"))
    whole = lambda act, hook: donor.cache[hook.name, hook.step, hook.branch]
    for row, sites in (([before, state], [state]), ([before, state, after], [state, after]), ([after, state], [state, after])):
        hooks = [(f"{patch.site} @ step=1:3", whole) for patch in sites]
        calls = model.block_calls
        found = replay(model, target, [row], Shared())
        assert model.block_calls - calls == 2 * 2 * (model.layers - 2)
        assert torch.equal(found, model.run_with_hooks(fwd_hooks=hooks, seed=0, **call).latents)


def test_results_that_do_not_fit_run_again_and_other_conditions_are_other_results():
    model, call = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1")), tiny.call("wan2.1", steps=STEPS)
    target, donor = record(model, seed=0, **call), record(model, seed=1, **call)
    site = "blocks.0.hook_resid_post"
    patch = Patch(site, (1, 2), donor.donor(site), target.run.branches)
    one, least = target.run.outputs[0][0], minimal_blocks(model, target, patch)
    small, wide = Shared(one.numel() * one.element_size()), Shared()
    made = [replay(model, target, patch, shared) for shared in (small, small, wide, wide)]
    assert all(torch.equal(found, made[0]) for found in made)
    assert (small.saved, wide.saved) == (model.layers - 1, least)
    other = record(model, seed=0, **call | {"prompt": "another text"})
    assert torch.equal(replay(model, other, patch, wide), replay(model, other, patch)) and wide.saved < 2 * least


@pytest.mark.parametrize("name", ["wan-vace", "motif"])
def test_the_proof_of_a_family_finds_a_second_way_of_the_latents(name, monkeypatch):
    from cos_interp.interp.check import proof

    model = HookedVideoPipeline.from_pipeline(tiny.build(name))
    monkeypatch.setattr(type(model.adapter), "rereads", lambda self, transformer, layer: False)
    found = [said for _, said in proof.replays(proof.Probe(model, tiny.call(name, steps=2) | {"seed": 0})) if said]
    assert len(found) == 1 and "what follows also depends on the latents: see Adapter.rereads" in found[0]
    monkeypatch.undo()
    assert not any(said for _, said in proof.replays(proof.Probe(model, tiny.call(name, steps=2) | {"seed": 0})))
