"""What may take an activation's place, and from whom: anything that does not fit is refused before it is used."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import build_tiny, tiny_call

from cos_interp.interp import HookedVideoPipeline, InterpError, patching, sweep
from cos_interp.interp.ensemble import EnsembleSampler
from cos_interp.interp.errors import NotFinite
from cos_interp.interp.patches import Patch
from cos_interp.interp.patching import record, replay, replay_run, restart

SITE = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def model():
    return HookedVideoPipeline.from_pipeline(build_tiny("wan21-t2v"))


@pytest.fixture(scope="module")
def target(model):
    return record(model, seed=0, **tiny_call("wan21-t2v", steps=3))


def put(donor, **where):
    return Patch(SITE, (1,), donor, **where)


def test_a_recording_with_other_steps_is_no_donor(model, target):
    other = record(model, seed=1, **tiny_call("wan21-t2v", steps=4))
    with pytest.raises(InterpError, match="the donor has 4 steps, the target 3"):
        replay(model, target, put(other.donor(SITE)))
    with pytest.raises(InterpError, match="the donor has 4 steps, the target 3"):
        sweep(model, target, other, metric=torch.mean, steps=[0], layers=[0])
    own = other.donor(SITE)  # said on purpose, by a function of one's own
    meant = replay(model, target, put(lambda step, branch: own(2, branch)))
    assert torch.equal(meant, replay(model, target, put(lambda step, branch: other.cache[SITE, 2, branch])))


def test_a_recording_at_other_noise_levels_is_no_donor(model, target):
    levels = [0.9, 0.5, 0.1]
    pipe = build_tiny("wan21-t2v", "euler")
    other = HookedVideoPipeline.from_pipeline(pipe)
    mine = record(other, seed=0, **tiny_call("wan21-t2v", steps=3))
    theirs = record(other, seed=1, **tiny_call("wan21-t2v", steps=3))
    assert len(replay(other, mine, put(theirs.donor(SITE)))) == 1
    theirs.run.sigmas[:] = levels
    with pytest.raises(InterpError, match=r"step 1 of the donor has the noise level 0\.5"):
        replay(other, mine, put(theirs.donor(SITE)))


def test_a_recording_of_another_model_is_no_donor(model, target):
    pipe = build_tiny("wan21-t2v")
    with torch.no_grad():
        pipe.transformer.blocks[2].attn1.to_q.weight[0, 0] += 1
    other = record(HookedVideoPipeline.from_pipeline(pipe), seed=1, **tiny_call("wan21-t2v", steps=3))
    with pytest.raises(InterpError, match="recorded with another model"):
        replay(model, target, put(other.donor(SITE)))
    with pytest.raises(InterpError, match="recorded with another model"):
        sweep(model, target, other, metric=torch.mean, steps=[0], layers=[0])


WRONG = {
    "float64": (lambda act: act.double(), "torch.float64"),
    "bf16": (lambda act: act.bfloat16(), "torch.bfloat16"),
    "complex": (lambda act: act.to(torch.complex64), "torch.complex64"),
    "integers": (lambda act: act.long(), "torch.int64"),
    "sparse": (lambda act: act.to_sparse(), "sparse_coo"),
    "meta": (lambda act: act.to("meta"), "meta"),
    "one row more": (lambda act: torch.cat([act, act]), "shape"),
    "numpy": (lambda act: act.numpy(), "ndarray"),
}


@pytest.mark.parametrize("form", WRONG)
def test_what_does_not_fit_is_refused_with_its_address(form, model, target):
    change, said = WRONG[form]
    with pytest.raises(InterpError, match=rf"the donor of Patch\({SITE} @ step=1, .*{said}"):
        replay(model, target, put(lambda step, branch: change(target.cache[SITE, step, branch])))
    with pytest.raises(InterpError, match=rf"the hook at {SITE}.*, step 1, .*{said}"):
        model.run_with_hooks(
            fwd_hooks=[(f"{SITE} @ step=1", lambda act, hook: change(act))], seed=0, **tiny_call("wan21-t2v", steps=3)
        )


def test_nan_of_a_donor_names_the_patch(model, target):
    broken = target.cache[SITE, 1].clone()
    broken[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(NotFinite, match=rf"Patch\({SITE} @ step=1"):
        replay(model, target, put(lambda step, branch: broken))
    elsewhere = torch.ones(broken.shape[1:4], dtype=torch.bool)
    elsewhere[0, 0, 0] = False  # what is not put into place does not matter
    assert torch.equal(replay(model, target, put(lambda step, branch: broken, tokens=elsewhere)), target.run.latents)


def test_an_empty_mask_of_latent_cells_is_refused(model, target):
    none = torch.zeros(target.run.x_t[0].shape[2:], dtype=torch.bool)
    with pytest.raises(InterpError, match="names no cell"):
        replay(model, target, Patch("hook_x_t", (1,), target.donor("hook_x_t"), tokens=none))


@pytest.mark.parametrize("given", [None, 3, "patch", [None], [[]], {}])
def test_replays_say_what_they_take(given, model, target):
    with pytest.raises(InterpError, match=r"replay takes|no patch was given"):
        replay_run(model, target, given)
    with pytest.raises(InterpError, match="replay takes"):
        replay(model, given, put(target.donor(SITE)))


def test_sweeps_say_what_they_take(model, target):
    for wrong in ({"metric": None}, {"metric": 3}):
        with pytest.raises(InterpError, match="sweep takes"):
            sweep(model, target, target, **wrong)
    with pytest.raises(InterpError, match="sweep takes"):
        sweep(model, target.run, target, metric=torch.mean)


def test_restarts_take_latents_of_the_run(model, target):
    x_t = target.run.x_t[1]
    assert torch.equal(restart(model, target, 1, x_t).latents, target.run.latents)
    for wrong in (x_t[0], x_t[:, :1], x_t[..., :1], x_t[:0], x_t[None]):
        with pytest.raises(InterpError, match="takes latents like its own"):
            restart(model, target, 1, wrong)
    with pytest.raises(InterpError, match=r"got torch\.float64"):
        restart(model, target, 1, x_t.double())
    with pytest.raises(InterpError, match="restart takes"):
        restart(model, target, 1, x_t.numpy())


def test_slices_of_estimates_do_not_end_beyond_the_run(target):
    assert len(target.run.x0hat[1:]) == 2 and len(target.run.x0hat[-2:]) == 2 and len(target.run.x0hat[:]) == 3
    for beyond in (slice(5, 9), slice(1, 9), slice(3, None), slice(2, 1)):
        with pytest.raises(InterpError, match="step"):
            target.run.x0hat[beyond]


def test_only_latents_of_the_model_are_decoded(model, target):
    latents = target.run.latents
    assert model.decode(latents).shape[0] == 1
    with pytest.raises(InterpError, match="has 4 channels"):  # one channel would stand for all
        model.decode(latents[:, :1])
    with pytest.raises(InterpError, match="has 4 channels"):
        model.decode(torch.cat([latents, latents], 1))
    for wrong in (latents[0], latents.numpy(), None):
        with pytest.raises(InterpError, match="latents are"):
            model.token_grid(wrong)


@pytest.mark.parametrize("seeds", [2.0, "23", None, [0.5, 1], [0, None], True, {0: 1, 1: 2}])
def test_seeds_of_an_ensemble_are_whole_numbers(seeds):
    with pytest.raises(InterpError, match="seeds="):
        EnsembleSampler(build_tiny("wan21-t2v"), seeds=seeds)


def test_seeds_of_an_ensemble_may_be_of_numpy():
    assert EnsembleSampler(build_tiny("wan21-t2v"), seeds=np.int64(2)).seeds == [0, 1]
    assert EnsembleSampler(build_tiny("wan21-t2v"), seeds=np.array([4, 7])).seeds == [4, 7]


def test_the_donor_of_a_recording_says_what_was_not_recorded(target):
    with pytest.raises(InterpError, match="was not recorded"):
        target.donor("blocks.1.hook_mlp_out")
    assert isinstance(target, patching.Recording)
