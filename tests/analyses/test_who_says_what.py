"""Scorers that name no answers, that grade only, or that fail on some videos: what experiments make of what they do not say."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from cos_interp import analyses
from cos_interp.analyses.chain_of_steps.findings import level, more, reached, solved
from cos_interp.analyses.kit.problems import generate, problems
from cos_interp.analyses.noise.report import scored
from cos_interp.analyses.seeds.findings import VOTE, looks, table
from cos_interp.analyses.trajectory.separation import relation, status_of
from cos_interp.interp import InterpError
from tests.support import hooked_tiny

JUDGES = """
def even(video, case):
    return int(video.sum()) % 2 == 0

def grade(video, case):
    return {"mean": video.mean()}

def fails(video, case):
    if "box" in case.prompt:
        raise RuntimeError("no box here")
    return even(video, case)
"""
SEEDS = {"noises": 3, "num_inference_steps": 3, "components": 1}
ENSEMBLE = {"seeds": 3, "num_inference_steps": 2, "tensors": ("final",)}
COMMITMENT = {"noises": 3, "num_inference_steps": 3, "steps": (1,)}
ACCELERATION = {"num_inference_steps": 4, "bands": 1, "savings": (0.25,), "draws": 1, "methods": ("cache",)}
PROMPTS = ("a ball", "a box", "a ring", "a cube")


def even(clip):
    return int(clip.sum()) % 2 == 0


@pytest.fixture(scope="module")
def model():
    return hooked_tiny()


@pytest.fixture
def run_of(tmp_path, model):
    (tmp_path / "own.jsonl").write_text("".join(json.dumps({"prompt": p, "seed": 3}) + "\n" for p in PROMPTS))
    (tmp_path / "judges.py").write_text(JUDGES)

    def run(experiment, judge, settings):
        own = {"prompts": str(tmp_path / "own.jsonl"), "scorer": f"{tmp_path}/judges.py:{judge}"}
        return analyses.run(experiment, model=model, out=tmp_path / "run", workers=1, **own, **settings)

    return run


def ends(model, run, noises=3):
    """Whether each run of each problem is solved, by hand: ``[problem][noise]``."""
    config = run.config
    return [[even(generate(model, config, p, p.noise(n)).decode()[0]) for n in range(noises)] for p in problems(config)]


def test_seeds_vote_between_solved_and_wrong_where_no_answer_has_a_name(model, run_of):
    run = run_of("seeds", "even", SEEDS)
    solved = ends(model, run)
    assert {right for each in solved for right in each} == {True, False}
    rows = run.rows[(run.rows.kind == "look") & (run.rows.step == 1)]
    assert rows.groupby("problem").solved.agg(list).to_list() == [list(map(float, each)) for each in solved]
    assert (rows.answer == rows.solved.map({1.0: "solved", 0.0: "wrong"})).all()
    found = table(looks(run.rows).query("step == 1"), 3, "scorer").set_index("problem")[VOTE]
    cost = (3 * 2 + 1) / 3  # whole runs: between two and three
    for name, each in zip(found.index, solved, strict=True):
        two = np.mean([all(pair) or (pair[0] and not pair[1]) for pair in combinations(each, 2)])  # a tie: the first one
        assert found[name] == pytest.approx((3 - cost) * two + (cost - 2) * (sum(each) >= 2))


def test_seeds_leave_out_whom_a_scorer_failed_on(run_of, tmp_path):
    run = run_of("seeds", "fails", SEEDS)
    look = run.rows[run.rows.kind == "look"].set_index("problem")
    assert look.loc["prompt-001", ["solved", "scorer", "answer"]].isna().all(axis=None)
    assert look.solved.drop("prompt-001").notna().all() and {f.number.n for f in run.findings if f.number.n} == {3}
    assert "1 more left out: there is no verdict on one of their seeds." in (tmp_path / "run/report.html").read_text()


def test_seeds_of_a_scorer_that_grades_have_nothing_to_choose_by(run_of):
    with pytest.raises(InterpError, match="says solved or wrong"):
        run_of("seeds", "grade", SEEDS)


def test_a_majority_of_nameless_answers_is_right_where_most_runs_are(model, run_of):
    run = run_of("ensemble", "even", ENSEMBLE)
    by = run.rows[run.rows.method == "majority of 3"].set_index("problem").solved
    solved = ends(model, run)
    assert by.to_list() == [float(sum(each) >= 2) for each in solved] and 1 in map(sum, solved)


@pytest.mark.parametrize(("judge", "without"), [("grade", set(PROMPTS)), ("fails", {"a box"})])
def test_ensembles_have_no_score_without_a_verdict(judge, without, run_of):
    rows = run_of("ensemble", judge, ENSEMBLE).rows
    none = rows.groupby("problem").solved.agg(lambda solved: solved.isna().all())
    assert [prompt in without for prompt in PROMPTS] == none.to_list()


def test_committed_runs_agree_where_both_are_solved(model, run_of):
    run = run_of("commitment", "even", COMMITMENT)
    rows, solved = run.rows, ends(model, run)
    same = rows[rows.kind == "independent"].groupby("problem").same.agg(list)
    wanted = [[None if not (a or b) else a and b for a, b in combinations(each, 2)] for each in solved]
    assert [[None if s is None or s != s else bool(s) for s in each] for each in same] == wanted
    assert {each for some in wanted for each in some} == {None, True, False}
    again = rows[rows.kind == "renoise"]
    first = dict(zip(same.index, (each[0] for each in solved), strict=True))
    for row in again.itertuples():
        assert row.same == bool(row.solved) if first[row.problem] else row.same in ((False,) if row.solved else (None,))


@pytest.mark.parametrize(("judge", "without"), [("grade", set(PROMPTS)), ("fails", {"a box"})])
def test_commitment_knows_of_no_agreement_without_a_verdict(judge, without, run_of):
    rows = run_of("commitment", judge, COMMITMENT).rows
    none = rows.groupby("problem").agg(lambda told: told.isna().all())
    assert none.solved.to_list() == [prompt in without for prompt in PROMPTS]
    assert all(none.same[none.solved])


@pytest.mark.parametrize(("judge", "without"), [("even", set()), ("grade", set(PROMPTS)), ("fails", {"a box"})])
def test_an_answer_is_kept_where_a_solved_run_is_solved_again(judge, without, run_of):
    rows = run_of("acceleration", judge, ACCELERATION).rows
    named = rows.assign(prompt=rows.problem.map(dict(zip([f"prompt-{i:03d}" for i in range(4)], PROMPTS, strict=True))))
    silent = named[named.prompt.isin(without)]
    assert silent[["solved", "kept"]].isna().all(axis=None)
    told = named[~named.prompt.isin(without)].astype({"kept": float, "solved": float})
    assert told.solved.notna().all() and len(told) + len(silent) == len(rows)
    if len(told):
        right = told[told.solved_plain == 1]
        assert len(right) and (right.kept == right.solved).all() and told.kept[told.solved_plain == 0].isna().all()


def test_steps_on_which_a_scorer_failed_are_missing_and_not_0():
    """Two items of three steps: of one the scorer failed at the first step, of the other it said that it cannot be read."""
    said = {"a": [("undecided", "scorer failed: noise"), ("solved", ""), ("solved", "")],
            "b": [("undecided", "noise"), ("wrong", "late"), ("solved", "")]}  # fmt: skip
    rows = pd.DataFrame(
        [
            {"problem": p, "step": k, "status": s, "error": e, "distance": 0.5}
            for p, each in said.items()
            for k, (s, e) in enumerate(each)
        ]
    )
    table = solved(rows)
    assert np.isnan(table.loc["a", 0]) and table.loc["a", 1] == 1 and table.loc["b"].to_list() == [0, 0, 1]
    assert (level(table[0]).value, level(table[0]).n) == (0, 1)
    rise = more(table[2], table[0])
    assert (rise.kind, rise.n, rise.value) == ("paired shares", 1, 1)
    assert reached(table, 0).to_dict() == pytest.approx({"a": np.nan, "b": 0}, nan_ok=True)
    assert scored(rows)[0].score.isna().sum() == 1
    assert relation(status_of({"status": "undecided", "error": "scorer failed: noise"}), "solved") is None
    assert solved(rows[rows.step == 0].assign(error="scorer failed: noise")).isna().all(axis=None)


def test_of_several_noises_one_that_nobody_judged_leaves_the_item_without_a_share():
    said = (("solved", ""), ("undecided", "scorer failed: x"))
    rows = pd.DataFrame([{"problem": "a", "step": 0, "status": status, "error": error} for status, error in said])
    assert solved(rows).isna().all(axis=None) and solved(rows.assign(error="")).loc["a", 0] == 0.5


@pytest.mark.parametrize("experiment", ["self-correction", "noise"])
def test_experiments_go_on_where_a_scorer_fails(experiment, run_of, tmp_path):
    settings = {"num_inference_steps": 3} | ({"steps": (1,), "modes": ("replace",)} if experiment == "noise" else {})
    run = run_of(experiment, "fails", settings)
    assert run.rows.error.astype(str).str.startswith("scorer failed: RuntimeError: no box").any()
    assert "The scorer failed on " in (tmp_path / "run/report.html").read_text()
