"""Rows that share a forward: as many as fit, fixed for a run, and what they lose by it measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support import hooked_tiny

from cos_interp.analyses.driver import experiment
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit import pairs, rows
from cos_interp.analyses.kit.grid import Cell, Grid
from cos_interp.analyses.kit.pairs import Side
from cos_interp.analyses.kit.problems import Problem
from cos_interp.analyses.patching import PatchingConfig, StepFacts
from cos_interp.analyses.patching.report import TOLERANCE, cost_note
from cos_interp.interp import record

CALL = {"prompt": "a red ball", "num_inference_steps": 3, "guidance_scale": 1.0, "seed": 0}
LINE = '{"clean": {"prompt": "a red ball"}, "corrupt": {"prompt": "a green box"}}'


def test_rows_are_as_many_as_fit_and_nothing_runs_for_it():
    model = hooked_tiny()
    tokens, width = 3 * 2 * 2, 24
    each = 2 * tokens * width * rows.LIVE * 4
    for memory, expected in ((0, 1), (each / rows.SHARE, 1), (5.5 * each / rows.SHARE, 5), (1e12, rows.MOST)):
        assert rows.rows_that_fit(model, CALL, memory) == expected
    assert rows.rows_that_fit(model, CALL | {"height": 64}, 5.5 * each / rows.SHARE) == 2
    assert model.block_calls == 0
    assert model.run(**CALL).steps == 3  # the pipeline is as it was


def test_a_number_stands_and_a_run_that_is_continued_keeps_its_own():
    model = hooked_tiny()
    assert rows.settled(3, {"batch": 7}, model, CALL) == 3
    assert rows.settled("auto", {"batch": 7}, model, CALL) == 7
    assert rows.settled("auto", {}, model, CALL) == rows.MOST


def test_a_run_stores_its_rows_and_goes_on_with_them_on_a_smaller_machine(tmp_path, monkeypatch):
    path = tmp_path / "pairs.jsonl"
    path.write_text(LINE)
    model, folder = hooked_tiny(), tmp_path / "run"
    config = PatchingConfig(pair_file=str(path), num_inference_steps=3, steps=(0, 1, 2), sites=("hook_resid_post",))
    result = experiment.run(load("patching"), config, folder, model=model, workers=1)
    assert result.config.batch == rows.MOST == RunStore(folder).facts()["config"]["batch"]
    unit = next(name for name in result.units_of(StepFacts))
    before = {path.name: path.read_bytes() for path in (folder / "shards").iterdir()}
    assert 0 <= result.facts["rounding"] <= TOLERANCE
    assert f"Up to {rows.MOST} rows shared a forward" in cost_note(result.facts)
    assert result.facts["block_calls"] == result.facts["block_calls_minimum"]
    (folder / "shards" / f"{unit}.safetensors").unlink()
    monkeypatch.setattr(rows, "_memory", lambda model: 0)
    again = experiment.run(load("patching"), config, folder, model=model, workers=1)
    assert again.config.batch == rows.MOST
    assert {path.name: path.read_bytes() for path in (folder / "shards").iterdir()} == before
    fresh = experiment.run(load("patching"), config, tmp_path / "small", model=model, workers=1)
    assert fresh.config.batch == 1 and fresh.facts["rounding"] is None


def test_the_loss_by_a_shared_forward_is_that_of_the_row_alone():
    model = hooked_tiny()
    sides = [Side(Problem(str(seed), {}, seed, 0), record(model, **CALL | {"seed": seed})) for seed in (0, 1)]
    cells = [Cell("clean", "hook_resid_post", 1, layer) for layer in range(3)]
    grid, alone = Grid(model, *sides, batch=3), Grid(model, *sides, batch=1)
    one = alone.latents(cells[:1]).double()
    found = grid.measure(cells)
    found[0] = replace(found[0], latent=found[0].latent * (1 + 1e-5))  # on so small a model the rows are the same bits
    expected = float((found[0].latent.double() - one).norm() / one.norm())
    assert grid.rounding(found) == pytest.approx(expected, rel=1e-9) == pytest.approx(1e-5, rel=0.1)
    assert alone.rounding(found) is None and grid.rounding(found[:1]) is None


def test_a_run_within_a_small_budget_ends_with_the_same_bytes(tmp_path, monkeypatch):
    path = tmp_path / "pairs.jsonl"
    path.write_text(LINE)
    model, units = hooked_tiny(), {}
    config = PatchingConfig(
        pair_file=str(path), num_inference_steps=3, steps=(0, 2), span="single", sites=("hook_attn_out",), layers=(1,), batch=2
    )
    sizes = []  # of the recordings in their order, where there is room for all steps
    for name in ("wide", "narrow"):
        made = []

        def within(*args, made=made, sizes=tuple(sizes), **kwargs):
            budget = sizes[len(made)] - 1 if sizes else 1 << 20
            made.append(record(*args, **kwargs | {"max_bytes": budget}))
            assert made[-1].cache.nbytes <= budget
            return made[-1]

        monkeypatch.setattr(pairs, "record", within)
        result = experiment.run(load("patching"), config, tmp_path / name, model=model, workers=1)
        assert result.facts["block_calls"] == result.facts["block_calls_minimum"] > 0
        assert len(made) > 2 and all(bool(recording.passing) == (name == "narrow") for recording in made)
        sizes = [recording.cache.nbytes for recording in made]
        assert {key[1] for recording in made for key in recording.cache} == ({2} if name == "narrow" else {0, 2})
        units[name] = {path.name: path.read_bytes() for path in (tmp_path / name / "shards").iterdir()}
    assert units["wide"] == units["narrow"]
