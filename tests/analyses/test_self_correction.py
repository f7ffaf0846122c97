"""Self-correction: what was held by hand, planted corrections and none, readings that flicker, runs to the end."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from players import players, read_in
from support import build_tiny, tiny_call

from cos_interp.analyses.driver import twins
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import run, run_and_report
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.problems import problems
from cos_interp.analyses.self_correction import SelfCorrectionConfig
from cos_interp.analyses.self_correction.report import alike, final_given, findings, lag_to_right, once_held, place, readings
from cos_interp.interp import HookedVideoPipeline

STEPS = 20
READ = {
    "w": ("wrong", "wrong goal", "red"), "v": ("wrong", "wrong side", "blue"), "b": ("wrong", "lost", "red"),
    "u": ("undecided", None, None), "s": ("solved", "", "red"),
}  # fmt: skip


def table(runs: dict[str, str], task: str = "maze") -> pd.DataFrame:
    """Rows of items, a letter of READ a step and one for the final video."""
    rows = []
    for item, letters in runs.items():
        for step, letter in enumerate(letters):
            status, error, answer = READ[letter]
            about = {"problem": f"{task}-{item}", "task": task, "step": step, "sigma": 1 - step / len(letters)}
            rows.append({**about, "status": status, "error": error, "answer": answer})
    return pd.DataFrame(rows)


def judged(rows: pd.DataFrame) -> dict[str, Finding]:
    found = findings(AnalysisResult("self-correction", SelfCorrectionConfig(), rows), rows)
    return {finding.key.split(".")[1]: finding for finding in found}


def wrong_until(step: int, items: int = 24) -> pd.DataFrame:
    """Items that hold a wrong answer before a step and are right from there on; never, where the step is beyond the end."""
    letters = "w" * min(step, STEPS + 1) + "s" * max(0, STEPS + 1 - step)
    return table({str(i): letters for i in range(items)})


def test_what_is_held_by_hand():
    rows = table({"a": "uwws", "b": "vwss", "c": "wwvw", "d": "uuus", "e": "wwww", "f": "ssww"})
    read = readings(rows, 2)
    assert read.index.tolist() == [f"maze-{name}" for name in "abcdef"]
    assert read.held.tolist() == [True, False, False, False, True, False]  # c: another wrong answer; f: none before
    assert read.was.tolist() == [True, True, True, False, True, False]
    assert read.open.tolist() == [False, False, False, True, False, False]
    assert read.right.tolist() == [1, 1, 0, 1, 0, 0]
    assert [place(steps, 0.3) for steps in (20, 2, 3, 100)] == [6, 1, 1, 30]
    assert lag_to_right(rows).value == pytest.approx((1 + 1) / 2)
    given = final_given(rows, "wrong").set_index("step")
    assert given.loc[1, ["mean", "n"]].tolist() == [0.5, 4] and given.loc[2, ["mean", "n"]].tolist() == [0.25, 4]


def test_the_control_weighs_tasks_as_the_wrong_answers_do():
    rows = pd.concat([
        table({"a": "wwws", "b": "wwww", "c": "wwws", "d": "uuus", "e": "ubbw"}),
        table({"a": "wwws", "b": "uuuw", "c": "uuuw"}, "place"), table({"a": "uuus"}, "bounce"),
    ])  # fmt: skip
    control = alike(readings(rows, 2))
    assert control.value == pytest.approx(0.75 * 0.5 + 0.25 * 0.0) and control.n == 4
    assert math.isnan(alike(readings(table({"a": "wwws"}), 2)).value)


@pytest.mark.parametrize(
    ("until", "verdicts"),
    [
        (8, {"held": "reproduced", "early": "reproduced", "half": "not testable", "late": "not testable"}),
        (12, {"held": "reproduced", "early": "reproduced", "half": "reproduced", "late": "not testable"}),
        (17, {"held": "reproduced", "early": "reproduced", "half": "reproduced", "late": "refuted"}),
        (99, {"held": "refuted", "early": "refuted", "half": "refuted", "late": "not testable"}),
    ],
)
def test_corrections_are_found_where_they_were_planted(until, verdicts):
    found = judged(wrong_until(until))
    assert {key: finding.verdict for key, finding in found.items()} == verdicts
    assert found["held"].number.value == float(until < 99) and found["held"].number.n == 24
    assert found["held"].primary and found["late"].primary and not found["early"].primary and not found["half"].primary


EARLY = {f"early-{i}": "u" * 4 + "w" * 4 + "s" * 13 for i in range(8)}  # put right before half of the steps


@pytest.mark.parametrize(
    ("runs", "verdict", "control"),
    [
        (EARLY, "reproduced", 0.0),
        ({}, "not testable", math.nan),  # beside nothing
        ({f"stays-{i}": "u" * 4 + "w" * 17 for i in range(8)}, "not testable", 1.0),  # wrong answers stay at any time
        (dict(list(EARLY.items())[:2]), "not testable", 0.0),  # of two at most 0.84 stay
    ],
)
def test_late_answers_stay_only_where_early_ones_do_not(runs, verdict, control):
    """24 items take a wrong answer at .6 of the steps and keep it."""
    late = {f"late-{i}": "s" * 12 + "w" * 9 for i in range(24)}
    found = judged(table(late | runs))["late"]
    assert found.verdict == verdict and (found.number.value, found.number.n) == (1.0, 32 if control == 1 else 24)
    assert (found.control.n, found.control.value) == (len(runs), pytest.approx(control, nan_ok=True))
    assert ("says nothing of late steps" in found.why) == (verdict == "not testable")


def test_early_answers_count_once_whenever_they_were_held():
    rows = table({"a": "wwuwws", "b": "uwwuuw", "c": "uuuwww", "d": "wvwvws"})
    assert once_held(rows, 2).to_dict() == {"maze-a": 1, "maze-b": 0}
    found = once_held(rows, 4).sort_index()
    assert found.index.tolist() == ["maze-a", "maze-b", "maze-c"] and found.tolist() == [1, 0, 0]


def test_numbers_from_the_rows():
    chance = np.random.default_rng(0)
    letters = {}
    for item in range(200):
        held, right = chance.random(2) < (0.4, 0.7)
        letters[str(item)] = ("w" if held else "u") * 9 + ("s" if right else "v") * 12
    found = judged(table(letters))["held"]
    ends = [word[-1] == "s" for word in letters.values() if word[5] == word[6] == "w"]
    others = [word[-1] == "s" for word in letters.values() if word[6] == "u"]
    assert found.number.value == pytest.approx(np.mean(ends)) and found.number.n == len(ends)
    assert found.control.value == pytest.approx(np.mean(others)) and found.control.n == len(others)


def test_readings_that_are_dealt_out_anew_show_nothing():
    """A placebo: the readings of every step belong to other items, so no wrong answer is anybody's. Nearly all end right."""
    chance = np.random.default_rng(1)
    columns = [np.array(list("w" * 90 + "v" * 60 + "u" * 100 + "s" * 150)) for _ in range(STEPS)]
    letters = ["".join(row) for row in np.stack([chance.permutation(column) for column in columns], 1)]
    found = judged(table({str(i): word + ("s" if i % 20 else "v") for i, word in enumerate(letters)}))
    assert {finding.verdict for finding in found.values()} == {"not testable"}
    assert "readings flicker" in found["held"].why and found["held"].number.value > 0.9


@pytest.mark.parametrize("before", ["u", "b"])
def test_answers_that_form_are_not_corrected(before):
    """A placebo: nothing can be read, or the thing is not yet there, until the right answer is."""
    rows = table({str(i): before * 9 + "s" * 12 for i in range(60)})
    assert {finding.verdict for finding in judged(rows).values()} == {"not testable"}
    assert judged(wrong_until(8, 19))["held"].verdict == "not testable"


def test_the_last_step_is_the_final_video():
    rows = table({str(i): "wwww" for i in range(30)})  # of 3 steps: .7 of them is the last one
    assert judged(rows)["late"].verdict == "not testable" and "is the final video" in judged(rows)["late"].why


def test_a_small_real_run_with_its_report(organism, tmp_path):
    config = SelfCorrectionConfig(items=1, num_inference_steps=4)
    result, report = run_and_report(load("self-correction"), config, tmp_path / "run", model=organism, workers=1)
    assert RunStore(tmp_path / "run").verify() == []
    assert "cos analyze self-correction" in report.html and "<svg" in report.html and len(result.rows) == 4 * 5
    pd.testing.assert_frame_equal(result.rows, run(load("self-correction"), config, tmp_path / "run", model=organism).rows)
    assert {f["verdict"] for f in json.loads(json.dumps(report.data))["findings"]} == {"not testable"}
    shown = players(report.html)
    assert len(shown) == 4
    for problem in problems(config):
        told = shown[problem.name]["rows"]
        assert [row["name"] for row in told] == [*(f"step {k}" for k in range(4)), "final video"]
        assert [row["told"]["reads"] for row in told] == read_in(tmp_path / "run", problem)


def test_own_prompts_run_without_a_verifier(tmp_path):
    call = {k: v for k, v in tiny_call("wan21-t2v").items() if k not in ("num_inference_steps", "guidance_scale")}
    (tmp_path / "own.jsonl").write_text(json.dumps(call) + "\n")
    config = SelfCorrectionConfig(num_inference_steps=3, prompts=str(tmp_path / "own.jsonl"))
    model = HookedVideoPipeline.from_pipeline(build_tiny("wan21-t2v"))
    _, report = run_and_report(load("self-correction"), config, tmp_path / "run", model=model, workers=1)
    assert "no verifier" in report.html and report.data["findings"] == []


@pytest.mark.slow
def test_on_a_twin_nothing_is_reproduced(organism, tmp_path):
    config = SelfCorrectionConfig(items=2, num_inference_steps=8)
    _, report = run_and_report(load("self-correction"), config, tmp_path / "run", model=twins.twin_of(organism, 3), workers=1)
    assert "reproduced" not in {found["verdict"] for found in report.data["findings"]}
