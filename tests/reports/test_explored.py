"""What the page's script and template get of a figure: places as they are, everything else in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from cos_interp.reports import figures
from cos_interp.reports.drawing import REELS, Curves, Drawing, Maps
from cos_interp.reports.explored import explored
from cos_interp.reports.figures import Curve, Panel, panels, scatters
from cos_interp.reports.html import worded

TWO = ("#000000", "#ffffff")


def cells_of(made) -> list[dict]:
    return [cell for grid in made.grids for line in grid["lines"] for cell in line["cells"]]


def test_a_cell_that_is_not_finite_has_no_value_and_no_colour():
    cells = pd.DataFrame({"m": "", "y": [0, 1], "x": [0, 0], "value": [float("inf"), 0.25], "reels": [["a"], ["b"]]})
    maps = Maps(cells, "x", "y", "m", "effect", 0, 1, TWO)
    made = explored(maps, {"a": "reel-0"})
    upper, lower = cells_of(made)
    assert (upper["words"], upper["text"], upper["paint"]) == ("y 1, x 0: effect 0.25", "0.25", "#000000")
    assert (lower["words"], lower["text"], lower["paint"]) == ("y 0, x 0: no value", "", None)
    assert made.data["at"] == [("", 1, 0), ("", 0, 0)] and made.data["reels"] == [[], ["reel-0"]]
    assert [upper["reels"], lower["reels"]] == [[], ["reel-0"]] and "there are videos of it" in made.hint
    assert "reels" not in Drawing(Figure, maps).table


def test_an_interval_stands_behind_the_column_before_it():
    """And a number is written as in a table: whole, of two places, or of two digits where it is small."""
    cells = pd.DataFrame(
        {"m": ["a"], "y": [0], "x": [0], "value": [0.5], "difference": [-0.004], "low": [-1.0], "high": [0.25], "n": [3]}
    )
    (cell,) = cells_of(explored(Maps(cells, "x", "y", "m", "effect", 0, 1, TWO), {}))
    assert cell["words"] == "m a, y 0, x 0: effect 0.50, difference -0.0040 [-1, 0.25], n 3"
    points = pd.DataFrame({"panel": "", "curve": "c", "step": [0, 1], "mean": [0.1, None], "low": [0, None], "high": [0.2, None]})
    places = explored(Curves(points, "step"), {}).told
    assert places == [[("c", "0.10 [0, 0.20]")], [("c", "")]]
    assert [worded(value) for value in (1.0, 7, np.float32(0.25), pd.NA, "x")] == ["1.00", "7", "0.25", "–", "x"]


@pytest.mark.parametrize(("colour", "ink"), [("#000000", "#fff"), ("#ffffff", "#000"), ("#777777", "#000"), ("#757575", "#fff")])
def test_a_number_on_a_cell_is_black_or_white_by_contrast(colour, ink):
    """The grey on which both have the same contrast lies between #757575 and #777777."""
    cells = pd.DataFrame({"m": [""], "y": [0], "x": [0], "value": [0.5]})
    assert cells_of(explored(Maps(cells, "x", "y", "m", "z", 0, 1, (colour,)), {}))[0]["ink"] == ink


def test_points_know_their_places_clips_and_colours():
    about = pd.DataFrame({"run": ["a", "a", "b"], "kind": ["x", None, "y"], REELS: [("r",), ("r", "gone"), ()]})
    table = pd.DataFrame({"x": [-2.0, 0.0, 2.0], "y": [5.0, 5.0, 5.0]})
    drawn = scatters([("one", table), ("two", table[["y", "x"]].set_axis(["x", "y"], axis=1))], "kind", "kind", about, ("run",))
    made = explored(drawn.shown, {"r": "reel-0"})
    data, colours = made.data, [colour for colour, _ in made.legend]
    one, two = (plot["dots"] for plot in made.plots)
    assert [dot[:2] for dot in one] == [(20, 480), (250, 480), (480, 480)]  # 20 pixels are left free, y goes up
    assert [dot[:2] for dot in two] == [(20, 480), (20, 250), (20, 20)]
    assert [dot[2] for dot in one][::2] == colours and one[1][2] not in colours
    assert [text for _, text in made.legend] == ["x", "y"] and made.scale is None
    named = lambda column: [column["values"][at] for at in column["at"]]
    assert list(map(list, named(data["reels"]))) == [["reel-0"], ["reel-0"], []]
    assert [named(column) for column in data["told"]] == [["run a", "run a", "run b"], ["kind x", None, "kind y"]]
    assert named(data["address"]["run"]) == ["a", "a", "b"]
    assert drawn.shown.words() == "3 points in 2 maps, coloured by kind: x, y"
    assert drawn.table[drawn.table["map"] == "two"].y.tolist() == [-2, 0, 2] and REELS not in drawn.table
    sized = about.assign(size=[1.0, 3.0, 2.0])
    scaled = explored(scatters([("one", table)], "size", "size", sized, ("run",), categorical=False).shown, {})
    ends = scaled.scale["colours"]
    assert [paint for *_, paint in scaled.plots[0]["dots"]] == [ends[0], ends[-1], ends[len(ends) // 2]] and not scaled.legend
    assert (scaled.scale["low"], scaled.scale["high"]) == ("1", "3")


def test_fourteen_classes_have_colours_of_their_own_and_a_legend_beside_the_maps():
    about = pd.DataFrame({"name": [f"class {n}" for n in range(14)]})
    table = pd.DataFrame({"x": range(14), "y": range(14)})
    made = explored(scatters([("map", table)], "name", "name", about, ("name",)).shown, {})
    assert len({paint for *_, paint in made.plots[0]["dots"]}) == 14 and [text for _, text in made.legend] == list(about.name)


def test_places_of_a_map_are_addressed_by_themselves_and_called_by_their_ticks():
    table = pd.DataFrame([[0.1, 0.2]], index=[7], columns=[0, 4])
    drawn = figures.matrix_maps([("a", table)], "step, sigma", "layer", "z", xticks={0: "0\n1.00", 4: "4\n0.55", 5: "5\n0.00"})
    made = explored(drawn.shown, {})
    assert made.data["axes"][1:] == ["layer", "step"] and made.data["at"] == [("a", 7, 0), ("a", 7, 4)]
    assert made.grids[0]["heads"] == ["0\n1.00", "4\n0.55"] and made.grids[0]["corner"] == "layer / step, sigma"
    assert set(drawn.table.step) == {0, 4}
    by_layer = explored(figures.heat_maps([("a", table)], {0: 1.0, 4: 0.55}, "z").shown, {})
    assert by_layer.data["at"] == [("a", 7, 0), ("a", 7, 4)] and by_layer.grids[0]["heads"] == ["0\n1.00", "4\n0.55"]


def test_places_of_curves_are_called_by_what_they_stand_for():
    lines = [Curve("a", pd.DataFrame({"place": [0, 1], "mean": [0.1, 0.2]}))]
    budget = explored(panels([Panel("p", lines, "place", "number of steps", "solved", {0: "4", 1: "50"})]).shown, {})
    assert budget.data["names"] == ["4", "50"] and budget.label == "number of steps"
    steps = explored(panels([Panel("p", lines, "place", "step, sigma", "solved", {0: "0\n1.00", 1: "1\n0.50"})]).shown, {})
    assert steps.data["names"] == ["0", "1"] and steps.label == "step, sigma"
    assert explored(Curves(pd.DataFrame({"panel": "", "curve": "a", "step": [0], "mean": [0.5]}), "step"), {}) is None
