"""The director of a run: the neutral one changes nothing, one around another passes all on, and each method has its say."""

from __future__ import annotations

import inspect

import pytest
import torch
from support import FAMILIES, build_tiny, tiny_call

from cos_interp.interp import HookedVideoPipeline, InterpError
from cos_interp.interp.families import tiny
from cos_interp.interp.run.director import Around, Director

METHODS = [name for name in vars(Director) if not name.startswith("_")]


def fresh(name="wan2.1"):
    return HookedVideoPipeline.from_pipeline(tiny.build(name)), tiny.call(name, steps=2)


class Told(Around):
    """Notes which methods of a director were asked, in order."""

    def __init__(self, inner):
        super().__init__(inner)
        self.asked = []

    def __getattribute__(self, name):
        if name in METHODS:
            self.asked.append(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_neutral_director_changes_no_bit(family):
    model, call = HookedVideoPipeline.from_pipeline(build_tiny(family)), tiny_call(family, steps=2)
    expected = model.run(seed=0, **call).latents
    found = model.play(Around(Director()), **model.call_arguments({"seed": 0, **call}))
    assert torch.equal(found.latents, expected)


def test_a_director_is_asked_in_the_order_of_its_methods():
    model, call = fresh()
    told = Told(Director())
    model.play(told, **model.call_arguments({"seed": 0, **call}))
    loop = [name for name in told.asked if name in ("call", "edit_x0hat", "edit_x_t")]
    assert told.asked[:4] == ["encode", "prepare", "generator_states", "prepared"]
    assert loop == ["edit_x_t", "call", "call", "edit_x0hat", "edit_x_t", "call", "call", "edit_x0hat"]
    assert set(told.asked) == set(METHODS)


def test_one_around_another_passes_every_method_on():
    assert [name for name in METHODS if name in vars(Around)] == METHODS
    for name in METHODS:
        mine, inner = inspect.signature(getattr(Around, name)), inspect.signature(getattr(Director, name))
        assert mine == inner, name


def test_hooks_act_under_a_director_and_around_the_model_none_do():
    model, call = fresh()
    plain = model.run(seed=0, **call).latents
    with model.hooks([("hook_model_out", lambda act, hook: act * 0)]):
        edited = model.run(seed=0, **call).latents
        assert torch.equal(model.run_directed(Around, seed=0, **call).latents, edited)
        assert torch.equal(model.play(Director(), **model.call_arguments({"seed": 0, **call})).latents, plain)
    assert not torch.equal(edited, plain)


def test_a_model_does_one_run_at_a_time():
    model, call = fresh()
    again = lambda act, hook: model.play(Director(), **call)
    with pytest.raises(InterpError, match="this model is running already; use one model a thread"):
        model.run_with_hooks(fwd_hooks=[("hook_x_t @ step=0", again)], seed=0, **call)
    assert len(model.run(seed=0, **call).x_t) == 2
