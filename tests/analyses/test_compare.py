"""Runs beside each other: planted differences are found at noise levels and depths that no two runs share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_runs import MORE, layers_run, steering_run, surface

from cos_interp import analyses
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.reporting.aligned import cube, onto
from cos_interp.analyses.reporting.claims import claims
from cos_interp.analyses.reporting.compare import compared, differing, of_run, sentence
from cos_interp.analyses.reporting.drawn import sections_of
from cos_interp.analyses.reporting.measures import laid
from cos_interp.analyses.reporting.sides import names, sides
from cos_interp.interp.files import plain

ENTRY = analyses.EXPERIMENTS["layers"]
STEERING = analyses.EXPERIMENTS["steering"]
ENERGY = next(one for one in ENTRY.compared if one.value == "energy_own_contrast")
SKIPPED = next(one for one in ENTRY.compared if one.value == "distance")


def test_points_are_lines_between_own_ones_and_nothing_beyond():
    values = np.array([[3.0, np.nan, 1.0], [5.0, 4.0, np.nan]])
    found = onto(values, np.array([1.0, 0.5, 0.0]), np.array([1.0, 0.75, 0.25, -0.1]), 1)
    assert found[0].tolist()[:3] == [3.0, 2.5, 1.5] and np.isnan(found[0, 3])  # over the gap
    assert found[1].tolist()[:2] == [5.0, 4.5] and np.isnan(found[1, 2:]).all()  # not past the last one


def test_values_of_one_item_and_point_are_averaged():
    table = pd.DataFrame({"item": ["a", "a", "b"], "sigma": [1.0, 1.0, 0.5], "depth": 0.0, "value": [1.0, 3.0, 7.0]})
    found = cube(table)
    assert found.items == ("a", "b") and found.sigmas.tolist() == [1.0, 0.5]
    assert found.values[0, 0, 0] == 2 and found.values[1, 1, 0] == 7 and np.isnan(found.values[0, 1, 0])


def test_a_planted_difference_is_found_at_other_steps_and_layers():
    held = sides([layers_run("a", 4, 3), layers_run("b", 9, 5, MORE)])
    (group,) = laid(ENERGY, held).groups
    assert len(group.points) == 4 * 3 and not group.exact
    for point in group.points:
        (apart,) = point.differences
        assert point.numbers[0].value == pytest.approx(surface(point.sigma, point.depth) + 0.65)
        assert apart.number.value == pytest.approx(MORE) and apart.pairs == 14
        assert point.sigma == pytest.approx(1 - point.step / 4) and 0 <= point.depth < 1
    assert laid(SKIPPED, held).groups[0].points[0].differences[0].side == "no difference in any item"


def test_equal_points_are_not_interpolated():
    held = sides([layers_run("a", 4, 3), layers_run("b", 4, 3, MORE)])
    assert laid(ENERGY, held).groups[0].exact


def test_other_items_are_two_samples():
    """The same names, and items outside cos-500 in one run: nothing is held against itself."""
    held = sides([layers_run("a", 4, 3), layers_run("b", 4, 3, MORE, confirm=True)])
    (claim,) = claims(held)
    assert claim.differences[0].pairs == 0 and claim.differences[0].number.value == pytest.approx(MORE)
    (group,) = laid(ENERGY, held).groups
    assert {point.differences[0].pairs for point in group.points} == {0}


def test_claims_are_held_against_each_other_item_by_item():
    held = sides([layers_run("a", 4, 3), layers_run("b", 9, 5, MORE), layers_run("c", 4, 3)])
    (claim,) = claims(held)
    more, none = claim.differences
    assert more.pairs == none.pairs == 14 and more.number.value == pytest.approx(MORE) and none.number.value == 0
    said = sentence([claim], [], held)
    assert "a has 1.65 (95 % interval" in said and said.endswith("Of the 2 others 1 have more, 0 less, 1 not shown to differ.")
    assert of_run(claim, 1).endswith("which is more by 0.25 in all 14, paired over 14 items")
    assert "not shown to differ: 0.00 in all 14" in of_run(claim, 2)
    (alone,) = claims(held[:2])
    assert "; b has 1.90 (95 % interval" in sentence([alone], [], held[:2]) and "more by 0.25" in sentence([alone], [], held[:2])
    assert list(differing(held)["what"]) == ["layers", "--num-steps"]


def test_without_claims_the_last_point_answers():
    held = sides([layers_run("a", 4, 4), layers_run("b", 8, 4, MORE)])
    said = sentence([], [laid(ENERGY, held)], held)
    assert said.startswith(
        "No claim has a number in two of these runs. Energy of things above background, at sigma 0.25 and depth 0.75"
    )
    assert "a has 0.40" in said and "b less a: +0.25 (paired over 14 items)" in said  # 2 x 0.25 - 0.75 + 0.65
    assert sentence([], [], held) == "No claim has a number in two of these runs."


def test_parts_without_an_axis_are_compared_one_by_one():
    """Doses of a vector are neither steps nor layers: each has its number and its difference, item by item."""
    held = sides([steering_run("a"), steering_run("b", MORE)])
    effects, reads, shown, places = (laid(measured, held) for measured in STEERING.compared)
    found = {group.name: group.points for group in effects.groups}
    assert list(found) == ["steer, size 1", "steer, size 2", "random direction, size 1", "donor"]
    for name, times in (("steer, size 1", 1), ("steer, size 2", 2), ("donor", 0)):
        (point,) = found[name]
        assert point.differences[0].number.value == pytest.approx(times * MORE) and point.differences[0].pairs == 14
        assert point.numbers[0].n == 14
    assert [point.numbers[0].value for (point,) in (group.points for group in reads.groups)] == [1, 1, 0, 1]
    assert shown.lacking[0] == "a: it has no column donor_shown"
    (where,) = places.groups
    assert [point.depth for point in where.points] == [0, 0.25, 0.5, 0.75] and where.exact
    said = sentence([], [effects], held)
    assert "Effect on unseen pairs (steer, size 1): a has 0.17" in said and "sigma" not in said


def test_parts_are_drawn_and_tabled():
    held = sides([steering_run("a"), steering_run("b", MORE)])
    (section,) = sections_of(laid(STEERING.compared[0], held), held)
    assert section.table["part"].tolist() == [
        "steer, size 1",
        "steer, size 2",
        "random direction, size 1",
        "donor",
    ]
    assert section.table["b less a"][0] == "+0.25 (paired over 14 items)" and section.table["a"][2].startswith("0.07 [")
    assert "sigma" not in section.caption and "paired item by item" in section.caption
    points = section.figure.table
    apart = points[(points["of"] == "difference") & (points["series"] == "b less a")]
    assert apart["mean"].tolist() == pytest.approx([MORE, 2 * MORE, 0, 0])


def test_what_a_run_does_not_have_is_said():
    held = sides([layers_run("a", 4, 3), layers_run("b", 9, 5)])
    assert laid(Measured("x", "nothing"), held).lacking == ("a: it has no column nothing", "b: it has no column nothing")
    assert laid(Measured("x", "distance", where={"kind": "own"}), held).lacking[0] == "a: nothing of the kind was measured"


def test_pages_repeat_and_their_data_is_json():
    runs = [layers_run("a", 3, 2), layers_run("b", 4, 3, MORE)]
    page, data = compared(runs, ENTRY)
    assert page == compared(runs, ENTRY)[0] and "default-src 'none'" in page
    assert "paired item by item" in page and "the points of a, where others are interpolated" in page
    assert "1 of 1 claims have the same verdict" in page
    (claim,) = json.loads(json.dumps(plain(data), allow_nan=False))["claims"]
    assert claim["differences"][0]["number"]["value"] == pytest.approx(MORE)


def test_what_cannot_be_compared_is_refused():
    first = layers_run("a", 3, 2)
    with pytest.raises(RunError, match="give two or more"):
        sides([first])
    with pytest.raises(RunError, match="given twice"):
        sides([first, first])
    other = type(first)(**{**vars(first), "name": "noise", "folder": Path("/runs/n")})
    with pytest.raises(RunError, match="/runs/n is of noise"):
        sides([first, other])
    assert names([Path("/a/x/r"), Path("/b/x/r")]) == ["a/x/r", "b/x/r"]


def test_every_experiments_measures_say_what_they_are_along():
    for entry in analyses.EXPERIMENTS.values():
        assert len({one.title for one in entry.compared}) == len(entry.compared)
        for one in entry.compared:
            assert len(one.along) < 2 or (len(one.along) == 2 and one.along[1] == "layer"), one
    for name in ("circuit", "steering", "ensemble", "seed-choice"):
        assert analyses.EXPERIMENTS[name].compared, name


def test_pairs_that_were_looked_for_are_the_same_only_where_their_runs_say_so():
    """In probes and commitment pairs stand beside items of tasks; another model may have found another pair of the same name."""
    first, second = sides([layers_run("a", 3, 2), layers_run("b", 3, 2)])
    assert first.key("maze-000") == second.key("maze-000") is not None
    assert first.key("prompt-001") == second.key("prompt-001") is not None
    assert first.key("maze-prompt-000") is None


def test_dossiers_are_sent_to_their_runs():
    first = layers_run("a", 3, 2)
    dossiers = [type(first)(**{**vars(first), "name": "all", "folder": Path(f"/runs/{name}")}) for name in "ab"]
    with pytest.raises(RunError, match="/runs/a is a dossier: compare the runs in it"):
        sides(dossiers)
