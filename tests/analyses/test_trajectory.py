"""Trajectories: sketches, distances and maps by hand, planted parting of answers, whole runs."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from support import build_tiny, tiny_call

from cos_interp.analyses.driver import experiment
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.trajectory import TrajectoryConfig
from cos_interp.analyses.trajectory import measure as trajectory_map
from cos_interp.analyses.trajectory import report as trajectory_report
from cos_interp.analyses.trajectory.separation import (
    chance_separation,
    relabelled,
    relation,
    relative_distance,
    same_answer,
    separation,
)
from cos_interp.interp import HookedVideoPipeline, InterpError


def test_a_sketch_keeps_distances():
    short = torch.arange(5.0)
    assert torch.equal(trajectory_map.sketch(short, 8), short)
    a, b = torch.randn(2, 20_000, generator=torch.Generator().manual_seed(0))
    near = a + 0.1 * b
    small = [trajectory_map.sketch(v, 2048) for v in (a, b, near)]
    assert small[0].shape == (2048,)
    assert float((small[0] - small[1]).norm() / (a - b).norm()) == pytest.approx(1, abs=0.1)
    assert float((small[0] - small[2]).norm() / (a - near).norm()) == pytest.approx(1, abs=0.1)
    assert torch.equal(trajectory_map.sketch(a.view(2, -1), 2048), small[0])  # the same buckets for the same length


def test_distances_and_relations_by_hand():
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    assert relative_distance(a, b) == pytest.approx(5 / np.sqrt(12.5))
    assert relative_distance(a, a) == 0 == relative_distance(a * 0, a * 0)
    assert relation("solved", "undecided") == relation("wrong", "solved") == "right-wrong"
    assert relation(None, "solved") is None and relation("wrong", "wrong") == "wrong-wrong"
    right, other, lost = ({"status": s, "answer": x} for s, x in (("solved", "a"), ("wrong", "b"), ("undecided", "a")))
    assert (same_answer(right, right), same_answer(right, other), same_answer(right, lost)) == (True, False, None)


def test_separation_by_hand():
    def row(same, apart):
        return {"problem": "p", "space": "x_t", "step": 0, "sigma": 1.0, "same_answer": same, "distance": apart}

    rows = pd.DataFrame([row(True, 1.0), row(True, 2.0), row(False, 4.0), row(None, 99.0)])
    assert separation(rows).separation.tolist() == [2.5]
    assert separation(rows[rows.same_answer.eq(True)]).empty  # one kind of pairs only


def synthetic(parting: float, problems: int = 12) -> tuple[pd.DataFrame, dict]:
    """Runs a, a, b, b of every problem as random walks; ``parting`` moves a and b runs apart from step to step."""
    rng = torch.Generator().manual_seed(1)
    rows, runs = [], {}
    for p in range(problems):
        verdicts = [{"status": s, "answer": a} for s, a in (("solved", "a"), ("solved", "a"), ("wrong", "b"), ("wrong", "b"))]
        states = []
        for verdict in verdicts:
            walk = torch.randn(4, 30, generator=rng)
            way = 1 if verdict["answer"] == "b" else -1
            moved = [w + way * parting * k for k, w in enumerate(walk)]
            states.append({"x0hat": moved, "layer 3": list(walk)})
        found = trajectory_map.distance_rows(verdicts, states, range(4))
        rows += [{"problem": f"p{p}", "task": "maze", "sigma": 1 - row["step"] / 4, **row} for row in found]
        runs[f"p{p}"] = verdicts
    return pd.DataFrame(rows), runs


def test_planted_parting_is_found_in_its_space_only():
    rows, runs = synthetic(1.0)
    found = trajectory_report.findings(rows, runs)
    assert [f.verdict for f in found] == ["reproduced", "reproduced"]
    assert all(abs(f.control.value) < 0.1 < 0.3 < f.number.value for f in found)
    apart = separation(rows)
    assert trajectory_report.first_apart(apart, "x0hat") == 1  # at step 0 nothing has parted yet
    assert trajectory_report.first_apart(apart, "layer 3") is None
    assert abs(trajectory_report.growth(apart, "layer 3").value) < 0.15


def test_without_parting_or_with_dealt_out_verdicts_nothing_is_found():
    rows, runs = synthetic(0.0)
    assert {f.verdict for f in trajectory_report.findings(rows, runs)} == {"undecided"}
    rows, runs = synthetic(1.0)
    chance = chance_separation(rows, runs, "same_answer")
    assert abs(trajectory_report.growth(chance, "x0hat").value) < 0.1
    dealt = relabelled(rows, runs, np.random.default_rng(0))
    assert sorted(dealt.same_answer) == sorted(rows.same_answer)  # as many pairs of each kind
    few = rows[rows.problem.isin(["p0", "p1"])]
    assert {f.verdict for f in trajectory_report.findings(few, runs)} == {"not testable"}


def test_a_run_on_the_organism(organism, tmp_path):
    config = TrajectoryConfig(tasks=("maze",), items=1, noises=3, num_inference_steps=6, steps=(0, 2, 5), layers=(0, 4))
    result, report = experiment.run_and_report(load("trajectory"), config, tmp_path / "run", model=organism, workers=1)
    rows = result.rows
    assert RunStore(tmp_path / "run").verify() == []
    assert len(rows) == 3 * 4 * 3 and set(rows.space) == {"x_t", "x0hat", "layer 0", "layer 4"}  # pairs, spaces, steps
    start = rows[(rows.space == "x_t") & (rows.step == 0)].distance
    assert ((start > 1.3) & (start < 1.5)).all()  # independent noises
    assert len(report.data["findings"]) == 2
    points = pd.read_csv(tmp_path / "run" / "media" / "maps.csv")
    assert len(points) == 3 * 2 * 3 * 3 and points[["x", "y"]].notna().all(axis=None)  # spaces, methods, runs, steps
    kept = RunStore(tmp_path / "run").tensors("maze-000")
    assert kept["x_t"].shape == (3, 3, trajectory_map.KEPT)


def test_own_prompts_on_another_pipeline(tmp_path):
    call = tiny_call("wan21-t2v")
    model = HookedVideoPipeline(build_tiny("wan21-t2v"), "tiny", {k: v for k, v in call.items() if k != "prompt"})
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": p}) for p in ("a red box", "a blue circle")))
    config = TrajectoryConfig(
        prompts=str(file), noises=2, num_inference_steps=3, guidance_scale=3.0, steps=(0, 2), pool="mean"
    )  # fmt: skip
    result, report = experiment.run_and_report(load("trajectory"), config, tmp_path / "run", model=model, workers=1)
    assert result.rows.relation.isna().all() and (result.rows.distance > 0).all()
    assert report.data["findings"] == [] and any("no verifier" in line for line in report.lines)
    with pytest.raises(InterpError, match="layers 0 to 2"):
        experiment.run(load("trajectory"), config.model_copy(update={"layers": (5,)}), tmp_path / "no", model=model, workers=1)
