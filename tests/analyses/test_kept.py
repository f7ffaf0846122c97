"""Clips that units keep: each stays with the row that was measured of it, on the page and in the table of all items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from players import players

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import Unit
from cos_interp.analyses.driver.facts import RunFacts, Showing
from cos_interp.analyses.driver.kept import MOST, ROOM, keeps, kept, kept_clips, listed, reads, told_right, videos
from cos_interp.analyses.driver.thumbnails import OF_A_REEL, looked_into, thumbnail, thumbnail_bytes, thumbnails
from cos_interp.analyses.kit import choice
from cos_interp.analyses.kit.problems import Problem
from cos_interp.analyses.noise import NoiseConfig, label
from cos_interp.analyses.self_correction.measure import shown_steps

NOWHERE = {"problem": "a", "mode": "add", "step": None, "frame": None, "error": None}
ROWS = [
    {**NOWHERE, "kind": "none", "mode": None, "status": "solved", "error": "", "distance": 0.0},
    {**NOWHERE, "kind": "step", "step": 3, "status": "wrong", "error": "lost", "distance": 0.5},
    {**NOWHERE, "kind": "frame", "frame": 1, "status": "undecided", "distance": 9.0},
]


class OfARun(RunFacts, Showing):
    """As the facts of most experiments are."""


class Held:
    """The part of a store that is read."""

    def __init__(self, unit: Unit):
        self.unit = unit

    def finished(self, name):
        return self.unit.rows, self.unit.facts

    def tensors(self, name):
        return self.unit.tensors


def grey(value: int) -> np.ndarray:
    return np.full((2, 16, 16, 3), value, np.uint8)


def unit_of(clips) -> Unit:
    tensors, about = kept(clips)
    return Unit(ROWS, tensors, OfARun(sigmas=(1.0,), prompt="go", **about))


@pytest.fixture
def result():
    unit = unit_of([("undisturbed", 0, grey(10)), ("add: frame 1", 2, grey(90)), ("of no row", None, grey(200))])
    other = [{**row, "problem": "b", "status": "solved"} for row in ROWS]
    facts = {"model": {"name": "m", "digest": None, "revision": None, "given": True}, "versions": {}, "command": "c"}
    made = AnalysisResult("noise", NoiseConfig(), pd.DataFrame(ROWS + other), facts, {"a": unit.facts})
    return made, Held(unit)


def test_a_clip_has_what_was_measured_of_it(result):
    made, store = result
    (one,) = kept_clips(made, store)
    reel = one.reel(say={"distance": "distance"}, at=lambda name, row: {"frame": 1} if name.startswith("add") else {})
    assert [row.told for row in reel.rows] == [
        {"reads": "solved", "distance": 0.0}, {"reads": "undecided", "distance": 9.0}, {},
    ]  # fmt: skip
    assert reel.rows[1].at == {"frame": 1} and reel.text == "“go”" and reel.clips[:, 0, 0, 0, 0].tolist() == [10, 90, 200]
    some = one.reel("some", only=[2, 0])
    assert some.clips[:, 0, 0, 0, 0].tolist() == [200, 10] and [row.name for row in some.rows] == ["of no row", "undisturbed"]


def test_all_items_are_listed_and_those_with_clips_lead_to_them(result):
    made, store = result
    reels = [one.reel() for one in kept_clips(made, store)]
    table = videos(made.rows, label, reels)
    assert [getattr(item, "reel", item) for item in table["item"]] == ["a", "b"] and isinstance(table["item"][0], pages.Link)
    assert table.columns.tolist() == ["item", "undisturbed", "add: frame 1"]  # step 3 is not shown
    assert table["add: frame 1"].tolist() == ["undecided", "solved"]
    page = pages.build(made, "t", "q?", "s", [], [pages.Section("Videos", reels=reels, table=table)]).html
    assert list(players(page)) == ["a"] and '<td><a href="#reel-0-0">a</a></td>' in page and "<td>b</td>" in page
    assert videos(made.rows.assign(status=None), label, reels) is None


def test_items_are_listed_with_task_and_difficulty_where_these_are_known():
    told = pd.DataFrame({"number": [2.0, 1.0]}, index=pd.Index(["b", "a"], name="problem"))
    rows = pd.DataFrame({"problem": ["a", "a", "b"], "task": ["maze", "maze", "place"], "difficulty": [3, 3, None]})
    table = listed(told, rows, [])
    assert table.columns.tolist() == ["item", "task", "difficulty", "number"] and table["item"].tolist() == ["b", "a"]
    assert table.task.tolist() == ["place", "maze"] and table.difficulty.fillna(0).tolist() == [0, 3]
    assert listed(told, rows.assign(difficulty=None), []).columns.tolist() == ["item", "task", "number"]
    assert listed(told, rows[["problem"]], []).columns.tolist() == ["item", "number"]


def test_verdicts_of_rows_that_say_by_one_column_whether_they_are_right():
    rows = pd.DataFrame({"problem": ["a", "b", "c"], "solved": [1.0, 0.0, None], "error": [None, "wrong goal", None]})
    assert [reads(row) for row in told_right(rows).to_dict("records")] == [
        ("outcome", "right"), ("outcome", "not right (wrong goal)"), None,
    ]  # fmt: skip
    numbers = pd.DataFrame({"distance": [0.1, 0.2, 0.3]}, index=["a", "b", "c"])
    reels = [pages.Reel(name, "", np.zeros((1, 2, 8, 8, 3), np.uint8), [pages.Shown("chosen")]) for name in ("b",)]
    table = videos(told_right(rows), lambda row: "chosen", reels, beside=numbers)
    assert table.distance.tolist() == [0.1, 0.2, 0.3] and table.chosen.tolist()[:2] == ["right", "not right (wrong goal)"]
    assert [getattr(item, "reel", item) for item in table["item"]] == ["a", "b", "c"] and isinstance(table["item"][1], pages.Link)
    unjudged = videos(rows.assign(solved=None), lambda row: "chosen", reels, beside=numbers)
    assert unjudged.columns.tolist() == ["item", "distance"]


def test_verdicts_in_words():
    assert reads({"status": "wrong", "error": "wrong goal"}) == ("status", "wrong (wrong goal)")
    assert reads({"status": "solved", "error": ""}) == ("status", "solved")
    assert reads({"status": "solved", "outcome": "donor"}) == ("outcome", "the donor's")
    assert reads({"whose": "target"}) == ("whose", "its own") and reads({"status": None, "effect": 1.0}) is None
    assert reads({"status": float("nan")}) is None


def test_a_unit_without_clips_and_one_from_before():
    assert kept([]) == ({}, {})
    unit = unit_of([])
    assert not list(kept_clips(AnalysisResult("x", NoiseConfig(), pd.DataFrame(), {}, {"a": unit.facts}), Held(unit)))
    unit = unit_of([("undisturbed", 0, grey(1))])
    old = replace(unit, facts=unit.facts.model_copy(update={"of_rows": ()}))
    (one,) = kept_clips(AnalysisResult("x", NoiseConfig(), pd.DataFrame(), {}, {"a": old.facts}), Held(old))
    assert [row.name for row in one.reel().rows] == ["undisturbed"] and one.reel().rows[0].told == {}


def test_small_clips_are_kept_of_more_items():
    count = lambda size: sum(keeps(index, size) for index in range(200))
    tested = lambda index: choice.kept(Problem(f"maze-{index:03d}", {}, 0, index), 1)
    assert [index for index in range(1, 40, 2) if tested(index)] == [1, 3, 5, 7, 9, 11, 13, 15]  # the first MOST that are tested
    assert (count(1), count(9 * 80 * 80 * 3), count(ROOM // 3), count(ROOM // 2), count(100 * ROOM)) == (MOST, MOST, 3, 2, 1)


def test_the_steps_about_the_last_wrong_answer_are_kept():
    assert shown_steps(20, []) == [0, 4, 8, 11, 15, 19, 20] and shown_steps(20, [2, 17]) == [0, 4, 8, 11, 15, 17, 18, 19, 20]
    assert shown_steps(2, [1]) == [0, 1, 2]


def test_small_clips_are_sharp_and_bounded():
    blocks = np.random.default_rng(0).integers(0, 255, (9, 40, 40, 3), np.uint8)
    whole = blocks.repeat(2, 1).repeat(2, 2)
    assert (thumbnail(whole) == blocks[[0, 2, 4, 6, 8]]).all() and thumbnail(blocks).shape == (5, 40, 40, 3)
    large = np.zeros((81, 480, 832, 3), np.uint8)
    assert thumbnail(large).shape == (5, 48, 83, 3) and thumbnail_bytes(81, 480, 832) == thumbnail(large).nbytes
    assert thumbnail_bytes(2, 80, 80) == thumbnail(whole[:2]).nbytes


def test_small_clips_lie_in_reels_of_one_size_each():
    shown = [pages.Shown(f"clip {k}", {}, {"run": k}) for k in range(OF_A_REEL + 2)]
    small = np.zeros((2, 4, 4, 3), np.uint8)
    reels = thumbnails([(one, small if k else small[:, :2]) for k, one in enumerate(shown)])
    assert [len(reel.rows) for reel in reels] == [1, OF_A_REEL, 1] and all(reel.looked_up for reel in reels)
    seen = looked_into(reels, "run")
    assert seen[0] == ("small clips 1",) and seen[1] == ("small clips 2",) and seen[OF_A_REEL + 1] == ("small clips 3",)
