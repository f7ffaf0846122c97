"""Lengths: verdicts of made-up shares, and a run in which the videos are what plain calls make."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from players import players
from pydantic import ValidationError

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import run_and_report
from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.kit.problems import item_call
from cos_interp.analyses.kit.readings import begun
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.analyses.lengths import LengthsConfig
from cos_interp.analyses.lengths.findings import findings
from cos_interp.analyses.lengths.measure import Piece, measure, pair_of
from cos_interp.tasks import get_task


def made_up(trained: float, within: float, beyond: float, items: int = 100, seed: int = 0) -> pd.DataFrame:
    rng, rows = np.random.default_rng(seed), []
    for i in range(items):
        hard = rng.random()
        for video, share in (("trained", trained), ("within", within), ("beyond", beyond)):
            frames = 9 if video == "trained" else 13
            rows.append({"problem": f"p{i:03}", "task": "maze", "video": video, "frames": frames, "solved": float(hard < share)})
    return pd.DataFrame(rows)


def judged(rows: pd.DataFrame, twins=()):
    return findings(AnalysisResult("lengths", LengthsConfig(), rows, twins=twins))


def test_a_fall_is_reproduced_and_told_apart_from_what_longer_videos_cost():
    rows = made_up(0.95, 0.9, 0.4)
    items, videos = judged(rows)
    table = rows.pivot_table("solved", "problem", "video")
    assert items.verdict == "reproduced" and items.number.value == pytest.approx((table.within - table.beyond).mean())
    assert videos.verdict == "refuted" and items.primary and not videos.primary
    assert judged(rows, [{"lengths.items": Number(0.6, 0.5, 0.7, 100)}])[0].verdict == "undecided"
    items, videos = judged(made_up(0.95, 0.4, 0.38))
    assert items.verdict == "refuted" and videos.verdict == "reproduced"


def test_shuffled_lengths_show_no_fall():
    """Which video of an item is the longer one, by lot: one wrong verdict in forty is what a 95 % interval allows."""
    rows = made_up(0.95, 0.9, 0.4)
    tested, chance = rows[rows.video != "trained"], np.random.default_rng(0)
    assert judged(rows)[0].verdict == "reproduced"
    found = []
    for _ in range(40):
        dealt = tested.assign(video=tested.groupby("problem").video.transform(lambda names: chance.permutation(names)))
        found.append(judged(pd.concat([rows[rows.video == "trained"], dealt]))[0].verdict)
    assert found.count("reproduced") <= 1


def test_what_is_not_solved_within_the_trained_lengths_cannot_fall():
    assert judged(made_up(0.9, 0.1, 0.0))[0].verdict == "not testable"
    assert {one.verdict for one in judged(made_up(0.0, 0.0, 0.0))} == {"not testable"}


def test_the_beginning_of_the_same_video_decides_nothing():
    """Of a ball the short item is right wherever the long one is: a model that errs as often in every frame falls."""
    chance = np.random.default_rng(0)
    right = chance.geometric(0.1, 60) - 1  # frames until the first wrong one
    balls = pd.DataFrame([
        {"problem": f"b{i:03}", "task": "bounce", "video": video, "frames": 9 if video != "beyond" else 13,
         "solved": float(right[i] >= (13 if video == "beyond" else 9))}
        for i in range(60) for video in ("trained", "within", "beyond")
    ])  # fmt: skip
    wide = balls.pivot_table("solved", "problem", "video")
    assert (wide.within >= wide.beyond).all() and (wide.within - wide.beyond).mean() > 0.1
    assert judged(balls)[0].verdict == "not testable" and judged(balls)[0].number.n == 0
    mazes = made_up(0.95, 0.9, 0.88, items=60)
    both = judged(pd.concat([mazes, balls]))
    assert both[0].number == judged(mazes)[0].number and "the same video: 60 scenes" in both[0].statement
    assert both[1].number.n == 120


def test_frames_are_right_from_the_first_on():
    true = np.arange(4).reshape(4, 1, 1)
    assert begun(true, true) == 4 and begun(np.where(true == 1, 9, true), true) == 1 and begun(true + 1, true) == 0


@pytest.mark.parametrize("asked, said", [({"tasks": ("place",)}, "maze, bounce"), ({"frames": 15}, "13, 17, 21")])
def test_settings_that_do_not_go_are_refused(asked, said):
    with pytest.raises(ValidationError, match=said):
        LengthsConfig(**asked)


@pytest.mark.parametrize("task", ["maze", "bounce"])
def test_rows_are_the_verdicts_on_plain_runs(task, organism):
    config = LengthsConfig(tasks=(task,), items=1, num_inference_steps=2)
    piece = Piece(task, 0)
    unit = measure(organism, config, piece)
    pair, seed = pair_of(config, piece), seed_for("noise", 0, task, 0)
    run = lambda item: organism.run(**item_call(item), seed=seed, num_inference_steps=2, num_frames=len(item.cells)).decode()[0]
    long, trained = run(pair.beyond), run(pair.trained)
    within = (long[:9], pair.trained) if task == "bounce" else (run(pair.within), pair.within)
    for row, (frames, item) in zip(unit.rows, ((long, pair.beyond), within, (trained, pair.trained)), strict=True):
        verdict = get_task(task).verify(item, frames)
        assert (row["solved"], row["error"], row["frames"]) == (float(verdict.solved), verdict.error, len(frames))
        assert 0 <= row["right"] <= len(frames) and (row["right"] == len(frames)) == verdict.solved
    assert [row["video"] for row in unit.rows] == ["beyond", "within", "trained"]
    assert begun(pair.beyond.cells, pair.beyond.cells) == config.frames


def test_a_run_to_the_page(organism, tmp_path):
    config = LengthsConfig(items=1, num_inference_steps=2)
    result, report = run_and_report(load("lengths"), config, tmp_path / "run", model=organism, workers=1)
    assert len(result.rows) == 6 and {f["verdict"] for f in report.data["findings"]} == {"not testable"}
    assert [f["key"] for f in report.data["findings"]] == ["lengths.items", "lengths.videos"]
    linked = [name for name in result.rows.problem.unique() if f">{name}</a></td>" in report.html]
    assert linked == list(players(report.html)) and len(linked) == 2  # the first of each task
