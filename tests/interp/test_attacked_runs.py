"""What an attack found in runs, recordings and caches: each is right now, or refused in words."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from support import build_tiny, tiny_call

from cos_interp.interp import HookedVideoPipeline, InterpError, sweep
from cos_interp.interp.editing import Edit
from cos_interp.interp.errors import NotFinite
from cos_interp.interp.patches import Patch
from cos_interp.interp.patching import record, replay, restart

SITE = "blocks.0.hook_resid_post"
CALL = tiny_call("wan21-t2v", steps=3) | {"seed": 0}


@pytest.fixture(scope="module")
def model():
    return HookedVideoPipeline.from_pipeline(build_tiny("wan21-t2v"))


@pytest.fixture(scope="module")
def target(model):
    return record(model, **CALL)


def test_blocks_of_hooks_may_end_in_any_order(model, target):
    seen = []
    first = model.hooks([(SITE, lambda act, hook: act * 0)])
    second = model.hooks([(f"{SITE} @ step=1", lambda act, hook: seen.append(hook.step))])
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert model.has_hooks
    run = model.run(**CALL)
    second.__exit__(None, None, None)
    assert set(seen) == {1} and torch.equal(run.latents, target.run.latents)
    assert not model.has_hooks and torch.equal(model.run(**CALL).latents, target.run.latents)


def test_a_run_with_edits_is_not_restarted_without_them(model, target):
    edited = model.run_with_hooks(fwd_hooks=[(SITE, lambda act, hook: act * 0.5)], **CALL)
    with model.hooks([(SITE, lambda act, hook: act * 0.5)]):
        inside = model.run(**CALL)
    for run in (edited, inside):
        assert run.edited and not torch.equal(run.latents, target.run.latents)
        with pytest.raises(InterpError, match=r"made inside model.hooks"):
            restart(model, run, 1, run.x_t[1])
    plain = model.run(**CALL)
    assert not plain.edited and torch.equal(restart(model, plain, 1, plain.x_t[1]).latents, plain.latents)


@pytest.mark.parametrize(
    "cut", [{"reduce": lambda act: act * 2}, {"reduce": "mean"}, {"branches": "cond"}, {"tokens": {"row": 0}}]
)
def test_recordings_are_whole(cut, model):
    with pytest.raises(InterpError, match="a recording keeps whole activations"):
        record(model, **CALL, **cut)
    with pytest.raises(InterpError, match="record takes a HookedVideoPipeline"):
        record(model.pipe, **CALL)
    with pytest.raises(InterpError, match="recompute='no'"):
        record(model, recompute="no", **CALL)


def test_a_recording_of_some_steps_says_where_replays_start(model):
    some = record(model, steps=[1], **CALL)
    patch = lambda step: Patch("blocks.1.hook_resid_post", step, some.donor("blocks.1.hook_resid_post"))
    assert torch.equal(replay(model, some, patch(1)), some.run.latents)
    with pytest.raises(InterpError, match=r"has nothing for step 2|no residual streams of step 2"):
        replay(model, some, patch(2))
    other = torch.zeros_like(some.cache["blocks.1.hook_resid_post", 1])
    with pytest.raises(InterpError, match="keeps no residual streams of step 2"):
        replay(model, some, Patch("blocks.1.hook_mlp_out", 2, lambda step, branch: other))


def test_tokens_are_asked_of_what_has_tokens(model, target):
    mask = np.zeros(model.token_grid(target.run.latents).shape, bool)
    mask[0, 0, 0] = True
    for name in ("blocks.1.cross_attn.hook_k", "hook_time_emb"):
        for reduce in (None, "mean"):
            with pytest.raises(InterpError, match="no tokens of the video"):
                model.run_with_cache(names=name, tokens=mask, reduce=reduce, steps=1, **CALL)
    _, cache = model.run_with_cache(names=SITE, tokens=mask, steps=1, **CALL)
    assert torch.equal(cache[SITE, 1][:, 0], target.cache[SITE, 1][:, 0, 0, 0])


def test_a_function_that_reduces_gives_finite_numbers_with_axes(model, target):
    with pytest.raises(NotFinite, match=f"what reduce made of {SITE}"):
        model.run_with_cache(names=SITE, reduce=lambda act: act.log(), **CALL)
    for nothing in (lambda act: act[:0], lambda act: act.to_sparse(), lambda act: act.to("meta")):
        with pytest.raises(InterpError, match="must return an ordinary tensor with values"):
            model.run_with_cache(names=SITE, reduce=nothing, **CALL)
    _, same = model.run_with_cache(names=SITE, reduce=lambda act: act * 2, **CALL)
    assert same.axes[SITE] == target.cache.axes[SITE] and torch.equal(same[SITE, 1], target.cache[SITE, 1] * 2)
    _, less = model.run_with_cache(names=SITE, reduce=lambda act: act.mean(1), **CALL)
    assert len(less.axes[SITE]) == less[SITE, 1].ndim == 4
    assert len(less.stack(SITE).axes) == less.stack(SITE).values.ndim == 5
    _, complex_ = model.run_with_cache(names=SITE, reduce=lambda act: act.to(torch.complex64), **CALL)
    with pytest.raises(InterpError, match="complex64"):
        complex_.to_dataframe()


def test_a_metric_has_the_same_names_in_every_cell(model, target):
    names = iter("ab")
    with pytest.raises(InterpError, match="the metric gave a in the first cell and b in another"):
        sweep(model, target, target, metric=lambda latents: {next(names): 1.0}, steps=[1], layers=[0, 1])
    table = sweep(model, target, target, metric=torch.mean, sites=["hook_resid_post"] * 2, steps=[1], layers=[0])
    assert len(table) == 1


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        (lambda donor: Patch(None, 1, donor), "give a whole hook name"),
        (lambda donor: Patch(SITE + " @ step=1", 1, donor), "give a whole hook name"),
        (lambda donor: Patch(SITE, 1, lambda step: donor), r"must be a function of \(step, branch\)"),
        (lambda donor: Patch(SITE, 1, 3), "the donor is int"),
        (lambda donor: Edit(SITE, 1, lambda step, branch: donor), r"must be a function of \(activation, step, branch\)"),
        (lambda donor: Patch(SITE, 1, donor, broadcast="no"), "broadcast='no'"),
    ],
)
def test_patches_say_what_is_wrong_with_them(patch, said, model, target):
    with pytest.raises(InterpError, match=said):
        replay(model, target, patch(target.donor(SITE)))


def test_a_donor_of_too_few_axes_is_not_told_to_be_spread(model, target):
    flat = torch.zeros(target.cache[SITE, 1].shape[-1])
    with pytest.raises(InterpError, match="gave the shape") as told:
        replay(model, target, Patch(SITE, 1, lambda step, branch: flat, broadcast=True))
    assert "broadcast" not in str(told.value).split("gave")[1]


def test_runs_and_caches_are_themselves_alone(model, target):
    other = model.run(**CALL)
    assert target.run != other and target.run == target.run and target.run in [other, target.run]
    assert target.cache != record(model, **CALL).cache and target == target and len({target, target.run}) == 2


def test_calls_of_a_run_count_from_its_end_too(target):
    assert target.run.call(-1) is target.run.call(2)
    for wrong in (True, 1.0, 3, -4):
        with pytest.raises(InterpError, match="there was no call"):
            target.run.call(wrong)
    with pytest.raises(InterpError, match="give one step"):
        target.run.decode(slice(0, 2))


def test_steps_of_a_cache_are_asked_for_as_of_a_run(target):
    whole = target.cache.stack(SITE)
    for steps in ("all", None, slice(None)):
        assert torch.equal(target.cache.stack(SITE, steps).values, whole.values)
    assert torch.equal(target.cache.stack(SITE, np.int64(1)).values[0], target.cache[SITE, 1])
    with pytest.raises(InterpError, match="branch='x'"):
        target.cache.stack("hook_x_t", branch="x")
    for wrong in (torch.int8, "bfloat16", None):
        with pytest.raises(InterpError, match="is no device"):
            target.cache.to(wrong)


def test_what_is_no_latent_of_the_model_has_no_tokens(model, target):
    latents = target.run.latents
    with pytest.raises(InterpError, match="are not whole tokens"):
        model.token_grid(torch.zeros(1, 4, 3, 5, 5))
    for output_type in ("gif", "latent"):
        with pytest.raises(InterpError, match="output_type"):
            model.frames(latents, output_type)
    with pytest.raises(InterpError, match="latents are floats"):
        model.decode(latents.to_sparse())


def test_names_of_models_are_names():
    for wrong in (None, 5):
        with pytest.raises(InterpError, match="give a name or a folder"):
            HookedVideoPipeline.from_pretrained(wrong)
    with pytest.raises(InterpError, match="takes no foo"):
        HookedVideoPipeline.from_pretrained("tiny:wan2.1", foo=1)


def test_a_pipeline_without_an_autoencoder_says_so(target):
    pipe = build_tiny("wan21-t2v")
    pipe.vae = None
    with pytest.raises(InterpError, match="no autoencoder"):
        HookedVideoPipeline.from_pipeline(pipe).decode(target.run.latents)


def test_a_model_whose_blocks_went_is_made_again():
    pipe = build_tiny("wan21-t2v")
    model = HookedVideoPipeline.from_pipeline(pipe)
    del pipe.transformer.blocks[1]
    with pytest.raises(InterpError, match="has 2 blocks now, and had 3"):
        model.run(**CALL)
    assert HookedVideoPipeline.from_pipeline(pipe).layers == 2


def test_a_scheduler_that_makes_nan_of_the_last_step_is_named():
    pipe = build_tiny("wan21-t2v")
    step = pipe.scheduler.step
    count = [0]

    @functools.wraps(step)
    def broken(*args, **kwargs):
        prev, *rest = step(*args, **kwargs)
        count[0] += 1
        return (prev * float("nan") if count[0] == 3 else prev, *rest)

    pipe.scheduler.step = broken
    with pytest.raises(NotFinite, match="made of step 2"):
        HookedVideoPipeline.from_pipeline(pipe).run(**CALL)
