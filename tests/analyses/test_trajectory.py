"""Trajectories: sketches, distances and maps by hand, planted parting of answers, whole runs."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from players import item_table, players
from support import build_tiny, tiny_call

from cos_interp.analyses.driver import experiment
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.statistics import auc
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.driver.twins import twin_of
from cos_interp.analyses.kit import belief
from cos_interp.analyses.kit.candidates import Candidates
from cos_interp.analyses.kit.problems import arguments, problems
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
from cos_interp.analyses.trajectory.told import concordance, told_rows
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


def test_planted_parting_is_drawn_in_its_space_only():
    rows, runs = synthetic(1.0)
    apart, chance = separation(rows), chance_separation(rows, runs, "same_answer")
    ends = lambda found, space: [found[(found.space == space) & (found.step == k)].separation.mean() for k in (0, 3)]
    assert abs(ends(apart, "x0hat")[0]) < 0.1 and ends(apart, "x0hat")[1] > 0.4
    assert abs(ends(apart, "layer 3")[1]) < 0.15 and abs(ends(chance, "x0hat")[1]) < 0.1
    dealt = relabelled(rows, runs, np.random.default_rng(0))
    assert sorted(dealt.same_answer) == sorted(rows.same_answer)  # as many pairs of each kind


# --- which answer, told from a state ---------------------------------------------------------------------------------

STEPS = (0, 3, 8, 14, 19)
SIGMAS = [1 - k / 20 for k in range(20)]
ANSWERS = ("a", "b", "c")


def told(known, items: int = 30, prefers: float = 0.0, seed: int = 0, same: bool = False, dealt: bool = False) -> pd.DataFrame:
    """Rows of items of four runs each. ``known``: by reading, how strongly its scores speak for the run's own answer, beside
    noise of size 1; ``prefers``: how strongly all speak for answer a, whatever the run; ``dealt``: answers dealt out anew."""
    chance, rows = np.random.default_rng(seed), []
    for i in range(items):
        ends = ["a"] * 4 if same else [str(chance.choice(ANSWERS)) for _ in range(4)]
        runs = [{"status": "solved", "answer": end} for end in ends]
        own = [str(chance.choice(ANSWERS)) for _ in ends] if dealt else ends
        scores = [
            {
                reading: [
                    {x: float(chance.normal() + prefers * (x == "a") + size * (x == end)) for x in ANSWERS} for _ in STEPS
                ]
                for reading, size in known.items()
            }
            for end in own
        ]  # fmt: skip
        rows += [{"problem": f"p{i}", "task": "maze", **row} for row in told_rows(runs, scores, STEPS)]
    return pd.DataFrame(rows) if rows else pd.DataFrame({"kind": [], "step": []})


def judged(rows: pd.DataFrame) -> dict:
    result = AnalysisResult("trajectory", TrajectoryConfig(), rows)
    return {f.key.split(".")[1]: f for f in trajectory_report.findings(result, rows, SIGMAS)}


def test_concordance_by_hand():
    one, other = {"a": 0.9, "b": 0.1, "c": 0.0}, {"a": 0.7, "b": 0.3, "c": 0.0}
    assert concordance(one, other, ("a", "b")) == 1 and concordance(one, other, ("b", "a")) == 0  # both lean to a: the more wins
    assert concordance(one, one, ("a", "b")) == 0.5 == concordance(one, other, ("c", "c"))


def test_concordance_is_the_area_under_the_curve():
    chance = np.random.default_rng(0)
    ends = [str(chance.choice(["a", "b"])) for _ in range(12)]
    scores = [{"a": float(chance.normal() + 0.5 * (end == "a")), "b": float(chance.normal())} for end in ends]
    rows = told_rows([{"status": "solved", "answer": e} for e in ends], [{"x_t": [s]} for s in scores], [0])
    area = auc(np.array([s["a"] - s["b"] for s in scores]), np.array([e == "a" for e in ends]))
    assert np.mean([row["told"] for row in rows]) == pytest.approx(area)


def test_only_pairs_that_end_solved_and_differ_count():
    runs = [
        {"status": s, "answer": x}
        for s, x in (("solved", "a"), ("wrong", "b"), ("solved", "b"), ("undecided", None), ("solved", "a"))
    ]
    rows = told_rows(runs, [{"x_t": [{"a": 0.0, "b": 0.0}]}] * 5, [0])
    assert [(row["first"], row["second"]) for row in rows] == [(0, 2), (2, 4)]


@pytest.mark.parametrize(
    ("x0hat", "x_t", "noise", "answers", "beyond"),
    [(1.5, 1.5, 0.5, "reproduced", "refuted"), (1.5, 0.5, 0.5, "reproduced", "reproduced"), (1, 1, 1, "refuted", "refuted"),
     (0.5, 1.5, 1.5, "refuted", "refuted"), (2, 2, 0.5, "reproduced", "not testable"), (2, 2, 2, "not testable", "not testable")],
)  # fmt: skip
def test_answers_part_where_the_estimate_tells_more_than_the_noise(x0hat, x_t, noise, answers, beyond):
    rows = told({"x0hat": x0hat, "x_t": x_t, "noise": noise}, items=200)
    found = judged(rows)
    assert (found["answers"].verdict, found["beyond-bayes"].verdict) == (answers, beyond)
    at = rows[rows.step == 8].astype({"told": float}).groupby(["problem", "reading"]).told.mean().unstack()
    assert found["answers"].number.value == pytest.approx((at["x0hat"] - at["noise"]).mean()) and found["answers"].primary
    assert found["beyond-bayes"].number.value == pytest.approx((at["x0hat"] - at["x_t"]).mean())
    assert found["answers"].control.value == pytest.approx(at["noise"].mean()) and not found["beyond-bayes"].primary


def test_an_answer_that_the_problem_prefers_in_every_run_is_no_parting():
    """Placebos: the estimate leans to one answer whatever the run; answers are dealt out anew; all runs give one answer."""
    lean = judged(told({"x0hat": 0, "x_t": 0, "noise": 0}, prefers=50.0))
    assert {f.verdict for f in lean.values()} <= {"undecided", "refuted"} and abs(lean["answers"].control.value - 0.5) < 0.15
    dealt = judged(told({"x0hat": 4, "x_t": 4, "noise": 1}, dealt=True))
    assert {f.verdict for f in dealt.values()} <= {"undecided", "refuted"}
    one = judged(told({"x0hat": 4, "x_t": 4, "noise": 1}, same=True))
    assert {f.verdict for f in one.values()} == {"not testable"} and one["answers"].number.n == 0
    assert judged(told({"x0hat": 4, "x_t": 4, "noise": 1}, items=11))["answers"].verdict == "not testable"


def test_what_is_told_only_at_the_end_does_not_count():
    rows = told({"x0hat": 0, "x_t": 0, "noise": 0}, items=60)
    late = (rows.step > 8) & (rows.reading == "x0hat")
    assert judged(rows.assign(told=rows.told.where(~late, 1.0)))["answers"].verdict in ("undecided", "refuted")
    assert trajectory_report.told_step(rows, SIGMAS) == 8


def test_without_an_item_to_tell_apart_no_step_is_named():
    found = judged(pd.DataFrame({"kind": [], "step": []}))
    assert all("x0hat at an early step tells" in one.statement and "None" not in one.statement for one in found.values())


def test_scores_of_a_run_are_the_kits():
    rows = torch.randn(3, 4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    among = Candidates(ANSWERS, rows, rows[0] * 0)
    run = SimpleNamespace(sigmas=[1.0, 0.5], x_t=[rows[1:2] * 2, rows[2:] + 1], x0hat=[rows.mean(0, keepdim=True), rows[1:2]])
    found = trajectory_map.scores_of(run, among, (0, 1))
    assert list(found["x0hat"][0].values()) == pytest.approx([1 / 3] * 3) and found["x0hat"][1]["b"] == pytest.approx(1)
    assert list(found["x_t"][1].values()) == belief.scores(run.x_t[1], rows, 0.5).tolist()
    assert found["noise"] == [found["x_t"][0]] * 2


@pytest.mark.slow
def test_a_twin_reproduces_nothing(organism, tmp_path):
    config = TrajectoryConfig(tasks=("maze", "place"), items=24, noises=2, num_inference_steps=4, steps=(0, 2, 3), layers=(0,))
    _, report = experiment.run_and_report(load("trajectory"), config, tmp_path / "run", model=twin_of(organism, 3), workers=1)
    assert "reproduced" not in {f["verdict"] for f in report.data["findings"]} and len(report.data["findings"]) == 2


def test_a_run_on_the_organism(organism, tmp_path):
    config = TrajectoryConfig(tasks=("maze",), items=1, noises=3, num_inference_steps=6, steps=(0, 2, 5), layers=(0, 4))
    result, report = experiment.run_and_report(load("trajectory"), config, tmp_path / "run", model=organism, workers=1)
    told, rows = (result.rows[result.rows.kind == kind] for kind in ("told", "pair"))
    assert RunStore(tmp_path / "run").verify() == []
    assert told.empty or set(told.reading) == {"x0hat", "x_t", "noise"}
    assert len(rows) == 3 * 4 * 3 and set(rows.space) == {"x_t", "x0hat", "layer 0", "layer 4"}  # pairs, spaces, steps
    start = rows[(rows.space == "x_t") & (rows.step == 0)].distance
    assert ((start > 1.3) & (start < 1.5)).all()  # independent noises
    assert len(report.data["findings"]) == 2
    points = pd.read_csv(tmp_path / "run" / "media" / "maps.csv")
    assert len(points) == 3 * 2 * 3 * 3 and points[["x", "y"]].notna().all(axis=None)  # spaces, methods, runs, steps
    kept = RunStore(tmp_path / "run").tensors("maze-000")
    assert kept["x_t"].shape == (3, 3, trajectory_map.KEPT)
    shown = players(report.html)
    # what the points show: three estimates and the final video of each run
    small = next(one for name, one in shown.items() if name.startswith("small clips"))
    assert [row["at"]["run"] for row in small["rows"]] == [f"maze-000, noise {n}" for n in range(3) for _ in range(4)]
    assert [row["at"].get("step") for row in small["rows"]] == [0, 2, 5, None] * 3
    assert [row["told"]["reads"] for row in small["rows"][3::4]] == [run["status"] for run in result.units["maze-000"].runs]
    ends = [run["status"] for run in result.units["maze-000"].runs]
    (told,) = item_table(report.html)
    assert told["opens"] and (told["item"], told["task"], told["runs"]) == ("maze-000", "maze", "3")
    assert sum(int(part.split()[0]) for part in told["end as"].split(", ")) == 3
    assert all(end.split(" ")[0] in told["end as"] for end in ends if end)
    assert [row["told"]["reads"].split(" ")[0] for row in shown["maze-000"]["rows"]] == ends
    problem = problems(config)[0]
    again = organism.run(**arguments(organism, config, problem, problem.noise(1)))
    for clip, latent in ((kept["finals"][1], again.latents), (kept["estimates"][1, 1], again.x0hat[2])):
        whole = organism.decode(latent)[0][[0, 2, 4, 6, 8]].astype(float)
        halved = whole.reshape(5, 40, 2, 40, 2, 3).mean((2, 4))
        assert np.abs(clip.numpy() - halved).max() <= 1


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
