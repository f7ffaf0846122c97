"""Recordings that fit: kept for what they are for, elsewhere or one step at a time, bit for bit as if all were there."""

from __future__ import annotations

import gc
import os

import pytest
import torch
from support import build_tiny, tiny_call

from cos_interp.interp import HookedVideoPipeline, InterpError, Patch, record
from cos_interp.interp.errors import BudgetExceeded
from cos_interp.interp.families import tiny
from cos_interp.interp.keeping import Keeping
from cos_interp.interp.patching import hold_step, replay
from cos_interp.interp.places import Disk, HostMemory
from cos_interp.interp.recomputing import bytes_of_a_step

PLACES = {"host": lambda tmp: HostMemory(), "disk": Disk}
SITES = ("hook_resid_post", "hook_attn_out", "attn.hook_z")
STEPS = 3


def mask_of(model, call):
    shape = model.token_grid(model.run(seed=0, **call).latents).shape
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.3


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_read_back_is_what_plain_hooks_saw(place, dtype, tmp_path):
    """bfloat16 too, and what is not contiguous."""
    pipe, call = build_tiny("wan21-t2v"), tiny_call("wan21-t2v", guidance=4.0, steps=STEPS)
    pipe.transformer.to(dtype)
    seen = []
    hook = pipe.transformer.blocks[1].register_forward_hook(lambda module, args, out: seen.append(out.clone()))
    model = HookedVideoPipeline.from_pipeline(pipe)
    there = PLACES[place](tmp_path)
    _, cache = model.run_with_cache(names="blocks.1.hook_resid_post", place=there, seed=0, **call)
    hook.remove()
    kept = [
        cache["blocks.1.hook_resid_post", step, branch].flatten(1, 3) for step in range(STEPS) for branch in ("cond", "uncond")
    ]
    assert len(seen) == len(kept) == 2 * STEPS and all(map(torch.equal, seen, kept))
    assert cache.nbytes == there.nbytes == sum(out.nbytes for out in seen) and kept[0].dtype == dtype
    there["turned", 0, None] = turned = torch.arange(12).view(3, 4).T
    assert torch.equal(there["turned", 0, None], turned) and torch.equal(there.pop(("turned", 0, None)), turned)
    assert there.nbytes == cache.nbytes and ("turned", 0, None) not in there


def test_files_are_gone_with_what_they_hold(tmp_path):
    there = Disk(tmp_path)
    there["a", 0, None] = value = torch.randn(5)
    read = there["a", 0, None]
    (file,) = there.folder.iterdir()
    there["a", 0, None] = -value
    assert file not in there.folder.iterdir() and len(list(there.folder.iterdir())) == 1 and there.nbytes == value.nbytes
    assert torch.equal(there["a", 0, None], -value) and torch.equal(read, value)  # mapped as long as it is in use
    if (child := os.fork()) == 0:
        del there
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert torch.equal(there["a", 0, None], -value)
    del there
    gc.collect()
    assert not list(tmp_path.iterdir())
    with pytest.raises(InterpError, match=r"cannot be kept in .*nowhere"):
        Disk(tmp_path / "nowhere")


def test_a_place_is_of_one_run(tmp_path):
    model, call = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1")), tiny.call("wan2.1", steps=STEPS)
    place = HostMemory()
    model.run_with_cache(place=place, seed=0, **call)
    for other in (place, "disk"):
        with pytest.raises(InterpError, match="to each run"):
            model.run_with_cache(place=other, seed=0, **call)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["wan2.2", "ltx2", "cogvideox", "mochi", "hunyuan", "framepack"])
def test_patched_runs_of_restricted_recordings_are_those_of_whole_ones(name, place, single, tmp_path):
    """Streams of the asked block alone, the donor's asked sites and tokens alone, elsewhere; whole, and one step at a time."""
    model, call = HookedVideoPipeline.from_pipeline(tiny.build(name)), tiny.call(name, steps=STEPS)
    layer, mask = model.layers - 1, mask_of(model, call)
    sites = [f"blocks.{layer}.{site}" for site in SITES if f"blocks.{layer}.{site}" in model.hook_names]
    whole, donor = record(model, sites, seed=0, **call), record(model, sites, seed=1, **call)
    streams = Keeping((layer,)).streams(model.hook_names)

    def restricted(names, kept, seed, **keeping):
        at = Keeping(**keeping, single=single, place=PLACES[place](tmp_path))
        one = bytes_of_a_step(model, kept, keeping.get("tokens"), {"seed": seed, **call})
        return record(model, names, recompute=single, keeping=at, max_bytes=one if single else 1 << 30, seed=seed, **call)

    def patched(target, donor, site, steps):
        return replay(model, target, Patch(site, steps, donor.donor(site), whole.run.branches, mask))

    target, gives = restricted((), streams, 0, layers=(layer,)), restricted(sites, sites, 1, layers=(), tokens=mask)
    assert bool(len(target.cache)) is bool(len(gives.cache)) is not single
    assert target.cache.nbytes + gives.cache.nbytes < whole.cache.nbytes and set(gives.cache.axes) <= set(sites)
    for site in sites:
        for step in (1, 0):
            assert torch.equal(patched(target, gives, site, (step,)), patched(whole, donor, site, (step,))), (site, step)
        if not single:
            assert torch.equal(patched(target, gives, site, (1, 2)), patched(whole, donor, site, (1, 2)))
    if single:
        assert {key[1] for key in target.cache} == {key[1] for key in gives.cache} == {0}
        hold_step(model, gives, 2)
    for given, wanted in [(one.donor(f"blocks.{layer}.hook_attn_out")(2, "cond") for one in (gives, donor))]:
        assert torch.equal(given, wanted * mask[..., None])


def test_what_was_not_kept_is_refused_by_name():
    model, call = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1")), tiny.call("wan2.1", steps=STEPS)
    mask, site = mask_of(model, call), "blocks.1.hook_attn_out"
    target = record(model, keeping=Keeping(layers=(1,)), seed=0, **call)
    gives = record(model, site, keeping=Keeping(layers=(), tokens=mask), seed=1, **call)
    here, elsewhere = int(mask.sum()), int((~mask).sum())
    for tokens in (None, ~mask):
        with pytest.raises(InterpError, match=f"was recorded at {here} of {mask.numel()} tokens, and {elsewhere} others"):
            replay(model, target, Patch(site, (1,), gives.donor(site), target.run.branches, tokens))
    with pytest.raises(InterpError, match="keeps no residual streams"):
        replay(model, gives, Patch(site, (1,), gives.donor(site), target.run.branches, mask))
    with pytest.raises(InterpError, match=r"say layers=\(\) of one that gives alone"):
        record(model, site, keeping=Keeping(tokens=mask), seed=0, **call)
    with pytest.raises(InterpError, match=r"layer 99"):
        record(model, site, keeping=Keeping(layers=(99,)), seed=0, **call)
    with pytest.raises(InterpError, match="give a Keeping"):
        record(model, site, keeping={"tokens": mask}, seed=0, **call)
    before = model.block_calls
    with pytest.raises(BudgetExceeded):  # a donor of several steps cannot do with one at a time
        record(model, site, recompute=True, keeping=Keeping(layers=()), max_bytes=10, seed=0, **call)
    assert model.block_calls == before


def test_a_function_given_as_reduce_keeps_within_the_budget():
    """What it makes is counted before it is kept: there is never more than the budget."""
    model, call = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1")), tiny.call("wan2.1", steps=STEPS)
    _, whole = model.run_with_cache(names="blocks.*.hook_resid_post", reduce=lambda act: act, seed=0, **call)
    each = whole.nbytes // len(whole)
    for budget in (whole.nbytes - 1, 2 * each, 2 * each - 1, 0):
        place = HostMemory()
        with pytest.raises(BudgetExceeded, match="the cache would hold"):
            model.run_with_cache(
                names="blocks.*.hook_resid_post", reduce=lambda act: act, max_bytes=budget, place=place, seed=0, **call
            )
        assert place.nbytes == budget // each * each
    assert model.run_with_cache(reduce=lambda act: act, max_bytes=whole.nbytes, seed=0, **call)[1].nbytes == whole.nbytes


def test_a_small_view_that_a_function_gives_does_not_hold_the_whole_activation_in_memory():
    """What counts against the budget is what stays: of a corner of an activation, not what it is cut from."""
    model, call = HookedVideoPipeline.from_pipeline(tiny.build("wan2.1")), tiny.call("wan2.1", steps=STEPS)
    for cut in (lambda act: act[..., :1], lambda act: act[:, :1, :1].expand(-1, 3, 3, -1, -1), lambda act: act.mT):
        _, cache = model.run_with_cache(names="blocks.*.hook_resid_post", reduce=cut, seed=0, **call)
        assert all(act.untyped_storage().nbytes() == act.nbytes for act in cache.store.values())
        assert cache.nbytes == sum(act.untyped_storage().nbytes() for act in cache.store.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("place", PLACES)
def test_a_gpu_gets_back_what_it_gave(place, tmp_path):
    there, value = PLACES[place](tmp_path), torch.randn(1000, device="cuda", dtype=torch.bfloat16)
    there["a", 0, None] = value
    assert there["a", 0, None].device == value.device and torch.equal(there["a", 0, None], value)
