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
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.driver.twins import twin_of
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
from cos_interp.analyses.perception.report import lag_finding, lag_findings, latent_finding
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
    """Trajectories that show nothing before step ``see``, the still first frame until ``move``, then the true video."""
    rows = []
    for number in range(items):
        true = get_task("place").sample(number).cells
        empty = np.full_like(true, FLOOR)
        empty[0] = true[0]
        for step in range(steps):
            shown = empty if step < see else np.repeat(true[:1], len(true), 0) if step < move else true
            rows.append({"problem": f"p{number}", "task": "place", "step": step, **readings(shown, true)})
            latent = torch.from_numpy(shown).double()[None]
            rows[-1] |= latent_readings(latent, torch.from_numpy(true).double()[None])
    return pd.DataFrame(rows)


def _result(rows: pd.DataFrame) -> AnalysisResult:
    return AnalysisResult("perception-before-action", PerceptionConfig(), rows)


def _lags(footprint: list[float], motion: list[float], task: str = "place") -> pd.DataFrame:
    """A table of lags of one task; all objects come with the footprint."""
    steps = pd.DataFrame({"task": task, "moving_place_step": footprint, "motion_step": motion})
    lag = steps.motion_step - steps.moving_place_step
    return steps.assign(lag_moving_place=lag, lag_localised=lag)


def test_planted_steps_are_read_exactly():
    table = lags(_planted(see=2, move=6))
    assert (table.still_step == 2).all() and (table.motion_step == 6).all() and (table.lag_still == 4).all()
    table = lags(_planted(see=3, move=3))
    assert (table.lag_localised == 0).all() and (table.lag_moving_place == 0).all()


RNG = np.random.default_rng(0)
PLACES = RNG.integers(1, 4, 16).astype(float)


@pytest.mark.parametrize(
    ("later", "verdict"),
    [(RNG.integers(2, 6, 16), "reproduced"), (RNG.integers(-1, 2, 16), "refuted"), (-2.0 + 0 * PLACES, "not testable")],
)
def test_motion_after_its_own_footprint_and_with_it(later, verdict):
    table = _lags(list(PLACES), list(PLACES + later))
    found = lag_finding(_result(table), table)
    assert found.verdict == verdict and found.key == "perception.place"
    assert found.number.n == 16 and found.number.value == pytest.approx(np.mean(later))


def test_objects_that_are_copied_early_do_not_make_a_lag():
    """All objects are there long before; the thing's motion comes with its own footprint."""
    table = _lags(list(PLACES), list(PLACES + RNG.integers(-1, 2, 16))).assign(lag_localised=4.0 + RNG.random(16))
    found = lag_finding(_result(table), table)
    assert found.control.low > 1 and found.verdict == "refuted"


def test_at_the_first_step_nothing_can_come_earlier():
    later = RNG.integers(2, 6, 16).astype(float)
    table = _lags([0.0] * 9 + [1.0] * 7, list(later))
    found = lag_finding(_result(table), table)
    assert found.verdict == "not testable" and "at step 0 already in 9 of 16 items" in found.why
    assert lag_finding(_result(table), _lags([0.0] * 8 + [1.0] * 8, list(later))).verdict == "reproduced"
    few = _lags([1.0] * 11, list(1 + later[:11]))
    assert "11 of at least 12 items" in lag_finding(_result(few), few).why
    latent = pd.DataFrame({"appearance_step": 0.0, "movement_step": later, "lag_appearance": later})
    assert latent_finding(_result(latent), latent).verdict == "not testable"


def test_a_lag_of_one_task_is_no_verdict_on_another():
    both = pd.concat([_lags(list(PLACES), list(PLACES + RNG.integers(4, 9, 16))), _lags(list(PLACES), list(PLACES), "maze")])
    found = {f.key: f.verdict for f in lag_findings(_result(both), both)}
    assert found == {"perception.place": "reproduced", "perception.maze": "not testable"}


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
    assert "Perception before action" in report.html and len(report.lines) == 4


@pytest.mark.slow
def test_a_twin_shows_nothing(organism, tmp_path):
    config = PerceptionConfig(items=12, num_inference_steps=3)
    run = run_and_report(load("perception-before-action"), config, tmp_path / "run", model=twin_of(organism, 3), workers=1)
    found = run[1].data["findings"]
    assert len(found) == 4 and "reproduced" not in {f["verdict"] for f in found}


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
