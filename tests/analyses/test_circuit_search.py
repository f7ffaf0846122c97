"""Circuits: the search for the smallest set, and the verdicts, as arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from cos_interp.analyses.circuit import CircuitConfig, Component
from cos_interp.analyses.circuit.checks import (
    ALONE,
    EARLY,
    FOREIGN,
    LATE,
    LEFT,
    LESS,
    NARROW,
    OUT,
    RANDOM,
    RANDOM_LEFT,
    RANDOM_OUT,
    WHOLE,
)
from cos_interp.analyses.circuit.components import drawn
from cos_interp.analyses.circuit.findings import findings
from cos_interp.analyses.circuit.search import narrowed, smallest
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.findings import Finding


def component(layer, part="cross", group="a"):
    return Component(part=part, layer=layer, group=group, steps=(0, 1, 2))


def test_the_smallest_set_is_not_what_greed_alone_finds():
    """0 is the best alone, and of no use to the two that do it together."""
    zero, one, two, three = map(component, range(4))
    worth = {frozenset({zero}): 0.5, frozenset({one, two}): 1.0, frozenset({zero, one}): 0.6, frozenset({zero, one, two}): 1.0}
    value = lambda sets: [worth.get(frozenset(chosen), 0.1) for chosen in sets]
    found, path = smallest([zero, one, two, three], value, 0.8, 4)
    assert set(found.components) == {one, two} and found.smaller == (zero,) and found.smaller_effect == 0.5 and found.tried == 4
    assert len(path) == 3 and set(path[-1][0]) == {zero, one, two}


def test_nothing_reaches_the_goal():
    assert smallest([component(0)], lambda sets: [0.3 for _ in sets], 0.8, 4)[0] is None
    assert smallest([], lambda sets: [], 0.8, 4) == (None, [])


def test_narrowing_keeps_the_steps_and_heads_that_are_needed():
    def worth(chosen):
        one = chosen[0]
        return 1.0 if {1, 2} <= set(one.steps) and (one.heads is None or 2 in one.heads) else 0.0

    (thin,) = narrowed((component(0),), lambda sets: [worth(chosen) for chosen in sets], 1.0, heads=3)
    assert thin.steps == (1, 2) and thin.heads == (2,)
    (whole,) = narrowed((component(0, "mlp"),), lambda sets: [worth(chosen) for chosen in sets], 1.0, heads=3)
    assert whole.heads is None


def test_a_random_set_is_as_large_elsewhere():
    mask = torch.zeros(3, 4, 4, dtype=torch.bool)
    mask[:, 0, 0] = True
    for draw in range(5):
        made, masks = drawn([component(1)], {"a": mask}, [("cross", n) for n in range(3)], np.random.default_rng(draw))
        assert made[0].layer != 1 and made[0].part == "cross"
        assert masks[made[0].group].sum() == 3 and not (masks[made[0].group] & mask).any()


TRUE = {
    ALONE: 0.95, RANDOM: 0.05, FOREIGN: 0.1, LEFT: 0.2, RANDOM_LEFT: 0.98, OUT: 0.9, RANDOM_OUT: 0.03, LESS: 0.4, WHOLE: 1.0,
    EARLY: 0.96, LATE: 0.1, NARROW: 0.9,
}  # all claims hold  # fmt: skip


def told(first: float | None = None, own_pairs: str | None = None, **more: float) -> list[Finding]:
    """Of made-up effects on 16 unseen pairs that differ a little: sufficient, necessary, knocked out, smallest, read early,
    narrowed. ``first``: what the found components do in the first pair; ``own_pairs``: the file that they are of."""
    chance = np.random.default_rng(0)
    rows = [
        {"table": "check", "pair": f"check-{n}", "way": way, "effect": effect + 0.02 * chance.standard_normal()}
        for n in range(16) for way, effect in (TRUE | more).items()
    ]  # fmt: skip
    if first is not None:
        rows[0]["effect"] = first
    return findings(AnalysisResult("circuit", CircuitConfig(pair_file=own_pairs), pd.DataFrame(rows)))


def verdicts(**more: float) -> list[str]:
    return [one.verdict for one in told(**more)]


def test_one_pair_that_diverges_by_itself_is_one_of_16():
    calm, wild = (told(first, **{ALONE: 0.1})[0].number for first in (0.1, 300.0))
    assert wild.value - calm.value == pytest.approx(0.9 / 16) and wild.high < 2


def test_verdicts_of_made_up_effects():
    assert verdicts() == ["reproduced"] * 6
    assert verdicts(**{ALONE: 0.5})[0] == "refuted"  # it goes less than half of the way beyond the controls
    assert verdicts(**{RANDOM: 0.9})[0] == verdicts(**{FOREIGN: 0.9})[0] == "refuted"  # as far as any components, or any donor
    assert verdicts(**{LEFT: 0.97})[1] == verdicts(**{RANDOM_LEFT: 0.2})[1] == "refuted"  # nothing is lost, or as much by any set
    assert verdicts(**{OUT: 0.04})[2] == verdicts(**{RANDOM_OUT: 0.8})[2] == "refuted"  # there is another road, or none matters
    assert verdicts(**{LESS: 0.93})[3] == "refuted"  # one is too many
    older = verdicts(**{OUT: math.nan, RANDOM_OUT: math.nan})  # of a run that did not try it
    assert older == ["reproduced", "reproduced", "not testable", *["reproduced"] * 3]
    assert verdicts(**{WHOLE: 0.5}) == verdicts(**{WHOLE: math.nan}) == ["not testable"] * 6  # something else carries it, or may
    for control in (RANDOM, FOREIGN):  # of two controls one is missing
        assert verdicts(**{control: math.nan})[0] == "not testable"


def test_own_pairs_have_no_random_item_beside_them():
    sufficient = told(own_pairs="pairs.jsonl", **{FOREIGN: math.nan})[0]
    assert sufficient.verdict == "reproduced" and sufficient.control.value == pytest.approx(0.05, abs=0.02)


def test_verdicts_of_what_is_read_early_and_of_a_narrowed_set():
    assert verdicts(**{LATE: 0.9})[4] == "refuted"  # a second road: what is read later does it, too
    assert verdicts(**{EARLY: 0.3})[4] == "refuted"  # most is read later
    assert verdicts(**{NARROW: 0.5})[5] == verdicts(**{FOREIGN: 0.8})[5] == "refuted"  # less than half beyond the controls
    number = told()[4].number
    assert number.value == pytest.approx(0.96 - 0.1, abs=0.02) and number.n == 16
    nothing_after = told(**{EARLY: math.nan, LATE: math.nan})[4]
    assert nothing_after.verdict == "not testable" and "comes after it" in nothing_after.why


def test_a_set_of_one_is_not_found_to_be_the_smallest():
    """With one component less nothing is patched, and nothing moves by definition."""
    chance = np.random.default_rng(0)
    rows = pd.DataFrame([
        {"table": "check", "pair": f"check-{n}", "way": way, "effect": (way != LESS) * (effect + 0.02 * chance.standard_normal())}
        for n in range(16) for way, effect in TRUE.items()
    ])  # fmt: skip
    found = findings(AnalysisResult("circuit", CircuitConfig(), rows))
    assert [one.verdict for one in found] == [*["reproduced"] * 3, "not testable", *["reproduced"] * 2]
    assert "set of one" in found[3].why
