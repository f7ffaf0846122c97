"""Seeds that are screened: what is finished is the run that it would have been, at the price that is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cos_interp.interp import SeedScreen
from cos_interp.interp.errors import InterpError
from cos_interp.interp.screening import begun, finished
from tests.support import build_tiny, hooked_tiny, plain, tiny_call

STEPS = 4


def call_of(family: str, guidance: float = 3.0) -> dict:
    return {k: v for k, v in tiny_call(family, guidance, STEPS).items() if k != "generator"}


@pytest.mark.parametrize("family, scheduler", [("wan21-t2v", "euler"), ("wan21-t2v", "unipc"), ("wan22-t2v", "euler")])
@pytest.mark.parametrize("step", [0, 1, STEPS - 1])
def test_what_is_finished_has_the_bits_of_the_plain_pipeline(family, scheduler, step):
    model, call = hooked_tiny(family, scheduler=scheduler), call_of(family)
    early = begun(model, step, **call, seed=3)
    made = finished(model, early, step)
    assert torch.equal(made.latents, plain(model.pipe, {**model.defaults, **call}, 3))
    whole = model.run(**call, seed=3)
    assert torch.equal(early.x0hat[step], whole.x0hat[step])
    assert torch.equal(early.latents, whole.latents) == (step == STEPS - 1)


def test_a_screen_finishes_the_best_and_computes_no_step_twice():
    pipe = build_tiny("wan21-t2v")
    call, seen = call_of("wan21-t2v"), []

    def look(one):
        seen.append((one.seed, one.step, one.latents.shape, one.frames.shape, one.frames.dtype))
        return {5: 1.0, 6: 3.0, 9: 2.0}[one.seed]

    screen = SeedScreen(pipe, look, step=1, seeds=[5, 6, 9], keep=2)
    found = screen(**call, output_type="latent")
    assert found.seeds == [6, 9] and found.scores == {5: 1.0, 6: 3.0, 9: 2.0}
    for latents, seed in zip(found.frames, found.seeds, strict=True):
        assert torch.equal(latents[None], plain(pipe, call, seed))
    each = screen.model.layers * 2  # branches
    assert screen.model.block_calls == each * (3 * 2 + 2 * (STEPS - 2))
    assert [s[:2] for s in seen] == [(5, 1), (6, 1), (9, 1)] and seen[0][2][0] == 1 and seen[0][4] == np.uint8
    assert type(pipe).__call__ and torch.equal(plain(pipe, call, 5), plain(pipe, call, 5))  # as it was


def test_frames_are_those_of_the_pipeline_and_equal_scores_keep_the_first():
    pipe, call = build_tiny("wan21-t2v"), call_of("wan21-t2v")
    found = SeedScreen(pipe, lambda look: True, step=0, seeds=2)(**call)
    wanted = pipe(**call, generator=torch.Generator("cpu").manual_seed(0), output_type="np").frames[0]
    assert found.seeds == [0] and len(found.frames) == 1 and np.array_equal(found.frames[0], wanted)


@pytest.mark.parametrize(
    "given, message",
    [({"seeds": 1}, "two seeds or more"), ({"seeds": [3, 3]}, "two seeds or more"), ({"seeds": "many"}, "give their number"),
     ({"look": 3}, "give a function"), ({"keep": 0}, "how many of the 4"), ({"keep": 9}, "how many of the 4")],
)  # fmt: skip
def test_a_screen_that_cannot_be_is_refused(given, message):
    with pytest.raises(InterpError, match=message):
        SeedScreen(build_tiny("wan21-t2v"), **{"look": lambda look: 0.0, "step": 1, **given})


def test_calls_that_do_not_fit_are_refused():
    pipe, call = build_tiny("wan21-t2v"), call_of("wan21-t2v")
    good = SeedScreen(pipe, lambda look: 0.0, step=1)
    for given, message in (({"seed": 1}, "leave it out"), ({"generator": torch.Generator()}, "leave it out"),
                           ({"prompt": ["a", "b"]}, "one prompt")):  # fmt: skip
        with pytest.raises(InterpError, match=message):
            good(**{**call, **given})
    with pytest.raises(InterpError, match="there is no step 9"):
        SeedScreen(pipe, lambda look: 0.0, step=9)(**call)
    with pytest.raises(InterpError, match="give one step"):
        SeedScreen(pipe, lambda look: 0.0, step=[0, 1])(**call)
    with pytest.raises(InterpError, match="no finite number"):
        SeedScreen(pipe, lambda look: float("nan"), step=0, seeds=2)(**call)
    model = hooked_tiny()
    with model.hooks([("hook_x_t", lambda act, hook: None)]), pytest.raises(InterpError, match="without edits"):
        begun(model, 0, **call, seed=0)
