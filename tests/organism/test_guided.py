"""The organisms that are tuned for guidance and ship, at the scale at which the paper runs."""

from __future__ import annotations

import json

import pytest

from cos_interp.interp import variants
from cos_interp.organism.evaluate import evaluate
from cos_interp.tasks import TASKS

GUIDED = [f"seed{n}-guided" for n in (1, 2, 3)]
SCALE = 5.0


@pytest.mark.parametrize("name", GUIDED)
def test_guidance_holds_by_the_card_as_well_as_is_asked_of_an_organism(name):
    """.85 of cos-500 and .70 of each task."""
    measured = json.loads((variants.VARIANTS / name / "card.json").read_text())["cos-500"]
    found = measured["final"]
    assert measured["guidance"] == SCALE and found["all"]["n"] == 500
    assert found["all"]["solved"] >= 0.85 and min(found[task]["solved"] for task in TASKS) >= 0.7


def test_a_tuned_organism_is_measured_with_guidance_where_none_is_said():
    for model, scale in (("organism:seed1-guided", SCALE), ("organism:seed1", 1.0)):
        assert evaluate(model, 1, None, 1, 0, False, False, 1)["guidance"] == scale


@pytest.mark.slow
@pytest.mark.parametrize("name", GUIDED)
def test_guidance_holds_in_the_tuned_organism_and_breaks_the_one_that_it_is_made_of(name):
    """8 items a task: of .91, which the cards say, fewer than 23 of 32 come once in a thousand draws."""
    tuned, plain = (
        evaluate(f"organism:{model}", 20, SCALE, 8, 0, False, False, 1)["final"]["all"]["solved"] * 32
        for model in (name, name.removesuffix("-guided"))
    )
    assert tuned >= 23 and plain <= 16
