"""Readings by hand; a planted trajectory whose lag is known; nulls; small runs to the page."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from support import build_tiny

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import run_and_report
from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.tracks import nearest_sprites
from cos_interp.analyses.perception import PerceptionConfig
from cos_interp.analyses.perception.measure import (
    class_overlap,
    first_step,
    footprint_overlap,
    lags,
    latent_readings,
    motion,
    moving_classes,
    overlap,
    readings,
)
from cos_interp.analyses.perception.report import lag_findings
from cos_interp.interp import HookedVideoPipeline
from cos_interp.tasks import get_task, grid
from cos_interp.tasks.grid import AGENT, BOX, FLOOR, WALL


def _scene(columns: list[int]) -> np.ndarray:
    """An agent in the given column of one row, frame by frame, with a wall at the end of the row."""
    out = np.full((len(columns), 1, 5), FLOOR)
    out[:, 0, 4] = WALL
    for frame, col in enumerate(columns):
        out[frame, 0, col] = AGENT
    return out


def test_masks_by_hand():
    a, b = np.array([1, 1, 0], bool), np.array([0, 1, 1], bool)
    assert overlap(a, b) == pytest.approx(1 / 3) and math.isnan(overlap(a & False, b & False))
    true, still, late = _scene([0, 1, 2]), _scene([0, 0, 0]), _scene([0, 0, 2])
    assert moving_classes(true) == [AGENT]
    assert motion(true, true, [AGENT]) == 1.0 and motion(still, true, [AGENT]) == 0.0 and motion(late, true, [AGENT]) == 0.5
    assert class_overlap(still, true, [WALL]) == 1.0 and class_overlap(still, true, [AGENT, WALL]) == 0.5
    assert footprint_overlap(late, true, [AGENT]) == pytest.approx(1 / 3)  # shows columns 0 and 2; truly 1 and 2
    backwards = _scene([0, 2, 1])
    found = readings(backwards, true)
    assert found["moving_place"] == 1.0 and found["motion"] == 0.0 and found["motion_shuffled"] == 1.0 and found["still"] == 1.0
    assert math.isnan(readings(_scene([0, 0, 0]), _scene([0, 0, 0]))["motion"])


def test_first_step():
    assert first_step([0.0, 0.4, 0.9, 0.8]) == 1.0
    assert math.isnan(first_step([0.0, 0.3])) and math.isnan(first_step([1.0, math.nan]))


def test_lenient_reading_never_gives_up():
    item = get_task("place").sample(0)
    assert (nearest_sprites(item.video) == item.cells).all()
    grey = np.full_like(item.video, 128)
    assert nearest_sprites(grey).shape == (grid.FRAMES, grid.ROWS, grid.COLS)


def _planted(see: int, move: int, steps: int = 8, items: int = 6) -> pd.DataFrame:
    """Trajectories that show nothing before step ``see``, until ``move`` the true video backwards, in which all is where it will
    be and nothing when, then the true video."""
    rows = []
    for number in range(items):
        true = get_task("place").sample(number).cells
        empty = np.full_like(true, FLOOR)
        empty[0] = true[0]
        for step in range(steps):
            shown = empty if step < see else true[::-1].copy() if step < move else true
            rows.append({"problem": f"p{number}", "task": "place", "step": step, **readings(shown, true)})
            latent = torch.from_numpy(shown).double()[None]
            rows[-1] |= latent_readings(latent, torch.from_numpy(true).double()[None])
    return pd.DataFrame(rows)


def judged(table: pd.DataFrame, twins=()) -> list:
    return lag_findings(AnalysisResult("perception-before-action", PerceptionConfig(), table, twins=twins), table, 8)


def mixed(first: tuple[int, int], second: tuple[int, int]) -> pd.DataFrame:
    """Half of the items with one planted (see, move), half with another: a mean of items that do not differ has no interval."""
    parts = [_planted(*first, items=7), _planted(*second, items=7)]
    parts[1]["problem"] += "b"
    return lags(pd.concat(parts))


def test_planted_lag_is_found_exactly():
    table = mixed((2, 6), (2, 5))
    late = table.motion_step - 2
    assert (table.moving_place_step == 2).all() and set(late) == {0, 3, 4}  # 0: half of the way is the same backwards
    (found,) = judged(table)
    assert found.key == "perception.place" and found.number.value == pytest.approx(late.mean() / 8) and not found.primary
    assert found.verdict == "reproduced"
    assert judged(table, [{"perception.place": Number(0.6, 0.5, 0.7, 14)}])[0].verdict == "undecided"
    assert judged(lags(_planted(2, 6, items=11)))[0].verdict == "not testable"


def test_shuffled_readings_show_no_lag():
    """Which of an item's two readings is the motion, by lot: one wrong verdict in forty is what a 95 % interval allows."""
    table, chance = mixed((2, 6), (2, 5)), np.random.default_rng(1)
    assert judged(table)[0].verdict == "reproduced"
    signs = lambda: chance.choice((-1, 1), len(table))
    found = [judged(table.assign(lag_moving_place=table.lag_moving_place * signs()))[0].verdict for _ in range(120)]
    assert found.count("reproduced") <= 5


def test_motion_that_comes_with_the_objects_is_no_lag():
    table = mixed((3, 3), (2, 2))
    assert (table.lag_localised == 0).all() and (table.lag_moving_place == 0).all()
    assert judged(table)[0].verdict == "not testable"  # no item differs from another: 0.00 in all of them
    table.loc[:2, "lag_moving_place"] = -1.0
    assert judged(table)[0].verdict == "refuted"


def test_what_is_there_at_once_can_have_no_lag():
    (found,) = judged(mixed((0, 0), (0, 0)))
    assert found.verdict == "not testable" and "both are there at step 0 in 14 of 14 items" in found.why


def test_tasks_are_never_pooled():
    table = pd.concat([mixed((2, 6), (2, 5)), mixed((3, 3), (2, 2)).assign(task="maze")])
    assert [(f.key, f.primary) for f in judged(table)] == [("perception.place", False), ("perception.maze", True)]


def test_latent_readings_by_hand():
    rng = torch.Generator().manual_seed(0)
    still, moving = torch.randn(3, 1, 4, 4, generator=rng), torch.randn(3, 5, 4, 4, generator=rng)
    moving = moving - moving.mean(1, keepdim=True)
    final = still + moving
    found = latent_readings(still.expand(3, 5, 4, 4), final)
    assert found["appearance"] == pytest.approx(1, abs=1e-6) and found["movement"] == pytest.approx(0, abs=1e-6)
    found = latent_readings(2 * moving, final)
    assert found["movement"] == pytest.approx(1, abs=1e-6)


def test_a_run_on_the_organism(organism, tmp_path):
    config = PerceptionConfig(items=1, num_inference_steps=4)
    result, report = run_and_report(load("perception-before-action"), config, tmp_path / "run", model=organism, workers=1)
    assert RunStore(tmp_path / "run").verify() == []
    assert len(result.rows) == 4 * 5
    last = result.rows[result.rows.step == 4]
    np.testing.assert_allclose(last[["appearance", "movement"]], 1)
    assert result.rows[["localised", "motion"]].stack().between(0, 1).all()
    assert "Perception before action" in report.html and len(report.lines) == 5


@pytest.mark.slow
def test_the_untrained_twin_shows_nothing(tmp_path):
    from cos_interp.organism.package import untrained_twin
    from cos_interp.organism.shapes import CALL_DEFAULTS

    model = HookedVideoPipeline(untrained_twin(), "untrained", CALL_DEFAULTS)
    config = PerceptionConfig(tasks=("place",), items=2, num_inference_steps=3)
    _, report = run_and_report(load("perception-before-action"), config, tmp_path / "run", model=model, workers=1)
    assert report.data["findings"][0]["verdict"] == "not testable"


def test_own_prompts_on_a_tiny_wan(tmp_path):
    model = HookedVideoPipeline(build_tiny("wan21-t2v"), "tiny", {"height": 32, "width": 32, "num_frames": 9})
    (tmp_path / "own.jsonl").write_text(json.dumps({"prompt": "go left"}) + "\n" + json.dumps({"prompt": "go right"}))
    config = PerceptionConfig(prompts=str(tmp_path / "own.jsonl"), num_inference_steps=3)
    result, report = run_and_report(load("perception-before-action"), config, tmp_path / "run", model=model, workers=1)
    assert RunStore(tmp_path / "run").verify() == []
    assert "localised" not in result.rows and "no verifier" in report.html


def test_box_is_no_moving_thing():
    item = get_task("place").sample(1)
    assert BOX not in moving_classes(item.cells) and len(moving_classes(item.cells)) == 1
