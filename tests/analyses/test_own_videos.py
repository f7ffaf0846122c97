"""Decoded steps that another program left: read in the layouts that people have, judged, and held beside shortcuts."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from faults import at_boundary, content, in_a_child

from cos_interp import analyses, cli
from cos_interp.analyses.chain_of_steps import ChainOfStepsConfig
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.exporting.steps import export
from cos_interp.interp import InterpError
from cos_interp.tasks import suite
from cos_interp.tasks.impostors import crossfade, frozen, jump
from cos_interp.tasks.steps import find, lacking
from cos_interp.tasks.video import encode_mp4

ITEMS = suite.task_items("place")[:3]


def clips(item):
    """What a model's steps may look like: a fade, a jump, the answer."""
    return [crossfade(item.video), jump(item.video), item.video]


def put(path, clip):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_mp4(clip, 4))


def sensenova(folder, split=suite.NAME):
    for i, item in enumerate(ITEMS):
        at = folder / split / "place"
        for k, clip in enumerate(clips(item)):
            put(at / f"{i:05d}_steps" / f"step_{k:03d}.mp4", clip)
        put(at / f"{i:05d}.mp4", item.video)
        schedule = [{"step": k, "timestep": 1000 - 300 * k, "sigma": 1 - 0.3 * k} for k in range(3)]
        (at / f"{i:05d}_noise_schedule.json").write_text(json.dumps(schedule))


def checkpoints(folder, split=suite.NAME):
    for i, item in enumerate(ITEMS):
        for k, clip in enumerate(clips(item)):
            put(folder / f"checkpoint-{k * 100}" / split / "place" / f"{i:05d}.mp4", clip)


def flat(folder):
    for k, clip in enumerate(clips(ITEMS[0])):
        put(folder / "steps" / f"step_{k:03d}.mp4", clip)
    put(folder / "generated.mp4", ITEMS[0].video)


def scored(folder, out, **settings):
    return analyses.run("chain-of-steps", out=out, workers=1, from_steps=str(folder), **settings)


def test_the_three_layouts_are_read(tmp_path):
    for name, make in (("a", sensenova), ("b", checkpoints), ("c", flat)):
        make(tmp_path / name)
    one, *others = find(tmp_path / "a")
    assert one.key == "cos-500/place/00000" and one.task == "place" and len(others) == 2
    assert [(s.step, s.sigma, s.timestep) for s in one.steps] == [(0, 1.0, 1000.0), (1, 0.7, 700.0), (2, 0.4, 400.0)]
    one = find(tmp_path / "b")[0]
    assert [s.step for s in one.steps] == [0, 100, 200] and one.final is None and one.key == "cos-500/place/00000"
    (one,) = find(tmp_path / "c")
    assert one.key == "c" and len(one.steps) == 3 and one.final.name == "generated.mp4" and one.steps[0].sigma is None
    (tmp_path / "a/cos-500/place/empty").mkdir()
    assert [(s.key, s.steps) for s in find(tmp_path / "b/checkpoint-0")][:1] == [
        ("cos-500/place/00000", ())
    ]  # final videos alone
    with pytest.raises(InterpError, match="holds no videos; the layouts are"):
        find(tmp_path / "a/cos-500/place/empty")
    assert [len(sample.steps) for sample in find(tmp_path / "c/steps")] == [3]  # the folder of the steps itself
    (tmp_path / "a/checkpoint-1").symlink_to(tmp_path / "b/checkpoint-0")
    with pytest.raises(InterpError, match="mixes steps and checkpoints"):
        find(tmp_path / "a")
    (tmp_path / "c/noise_schedule.json").write_text('[{"step": 0, "sigma": "high"}]')
    with pytest.raises(InterpError, match="no noise schedule"):
        find(tmp_path / "c")


@pytest.mark.parametrize("make", [sensenova, checkpoints])
def test_items_of_the_suite_are_judged_by_their_verifier(make, tmp_path):
    make(tmp_path / "theirs")
    run = scored(tmp_path / "theirs", tmp_path / "run")
    steps = run.rows[run.rows.kind == "steps"].sort_values(["problem", "step"])
    by_step = [set(part.status) for _, part in steps.groupby("step")]
    assert by_step[2] == {"solved"} and "solved" not in by_step[0] | by_step[1]
    beside = run.rows[run.rows.kind == "beside"].groupby("video").status.agg(set)
    assert beside["true video"] == {"solved"} and not beside[["frozen", "jump", "crossfade"]].map(lambda s: "solved" in s).any()
    (finding,) = run.findings
    assert finding.number.value == 1.0 and finding.control.value == 0.0 and run.facts["model"]["name"] == "no model"
    page = (tmp_path / "run/report.html").read_text()
    assert "no model" in page and "guidance 1.0" not in page and "jump" in page


def test_final_videos_alone_are_scored(tmp_path):
    checkpoints(tmp_path / "theirs")
    rows = scored(tmp_path / "theirs/checkpoint-200", tmp_path / "run").rows
    assert (rows[rows.kind == "steps"].status == "solved").all() and set(rows[rows.kind == "steps"].step) == {0}


def test_a_scorer_that_a_frozen_picture_satisfies_is_shown_to_be_one(tmp_path):
    sensenova(tmp_path / "theirs", "mine")
    for i, item in enumerate(ITEMS):
        put(tmp_path / "truth/mine/place" / f"{i:05d}" / "ground_truth.mp4", item.video)
    (tmp_path / "ssim.py").write_text(
        "from cos_interp.tasks.scorers.reference import judge as exact\n\n"
        "def judge(video, case):\n    return exact(video, case).readings['ssim']\n"
    )
    settings = {"truth": str(tmp_path / "truth"), "scorer": f"{tmp_path}/ssim.py:judge"}
    run = scored(tmp_path / "theirs", tmp_path / "run", **settings)
    assert run.rows.status.isna().all()
    still = run.rows[run.rows.video == "frozen"]["reading score"]
    assert (still > 0.85).all()  # what a frozen picture gets without any reasoning
    (finding,) = run.findings
    assert finding.number.value < 0.1 and "score" in finding.statement


def test_damaged_short_and_other_videos_are_undecided_with_the_reason(tmp_path):
    sensenova(tmp_path / "theirs")
    at = tmp_path / "theirs/cos-500/place"
    (at / "00000_steps/step_000.mp4").write_bytes(b"nothing")
    put(at / "00001_steps/step_000.mp4", ITEMS[1].video[:4])
    put(at / "00002_steps/step_000.mp4", np.zeros((9, 50, 60, 3), np.uint8))
    rows = scored(tmp_path / "theirs", tmp_path / "run").rows
    first = rows[(rows.kind == "steps") & (rows.step == 0)].set_index("problem")
    assert (first.status == "undecided").all()
    reasons = [first.error[f"cos-500/place/0000{i}"] for i in range(3)]
    for reason, words in zip(reasons, ("no readable video", "9 frames", "120x100"), strict=True):
        assert words in reason
    assert str(tmp_path) not in reasons[0]  # a run says nothing of this machine's folders


@pytest.mark.parametrize("scorer", ["reference", "ssim"])
def test_videos_without_a_verdict_are_missing_values_and_told(scorer, tmp_path):
    """Five right videos, of which one file is damaged and one judge fails: the other three decide, of a strict judge and of one
    that grades."""
    for i, item in enumerate(suite.task_items("place")[:5]):
        put(tmp_path / "theirs/mine/place" / f"{i:05d}.mp4", item.video[:4] if i == 3 else item.video)
        put(tmp_path / "truth/mine/place" / f"{i:05d}" / "ground_truth.mp4", item.video)
    (tmp_path / "theirs/mine/place/00001.mp4").write_bytes(b"nothing")
    (tmp_path / "ssim.py").write_text(
        "from cos_interp.tasks.scorers.reference import judge as exact\n\n"
        "def judge(video, case):\n    return exact(video, case).readings['ssim']\n"
    )
    judge = scorer if scorer == "reference" else f"{tmp_path}/ssim.py:judge"
    run = scored(tmp_path / "theirs", tmp_path / "run", truth=str(tmp_path / "truth"), scorer=judge)
    (finding,) = run.findings
    page = (tmp_path / "run/report.html").read_text()
    assert finding.number.n == 3 and finding.number.value > 0.01
    told = "have solved 3 of 3; at least 0.29; 2 of" if scorer == "reference" else "have score 1.00 in all 3; 2 of"
    assert f"{told} 5 have none, and are left out" in finding.statement
    assert "1 of 5 videos cannot be read, and have no score: mine/place/00001.mp4 is no readable video" in page
    assert "The scorer failed on 1 of" in page and (run.rows.status[run.rows.problem.eq("mine/place/00001")] == "undecided").any()


@pytest.mark.parametrize(
    ("names", "scheduled", "said"),
    [((0, 1, 3), None, "Of 1 of 1 samples: step 2 is missing."), ((1, 2), None, "Of 1 of 1 samples: step 0 is missing."),
     ((0, 1), (0, 1, 2), "step 2 of its noise schedule is missing"), ((0, 1), (5, 9), "its noise schedule has no step 0, 1"),
     ((0, 1), (0, 1), "")],
)  # fmt: skip
def test_steps_that_are_missing_are_told(names, scheduled, said, tmp_path):
    for k in names:
        put(tmp_path / "theirs/steps" / f"step_{k:03d}.mp4", ITEMS[0].video)
    if scheduled is not None:
        listed = [{"step": k, "timestep": 900.0 - k, "sigma": 0.9} for k in scheduled]
        (tmp_path / "theirs/noise_schedule.json").write_text(json.dumps(listed))
    run = scored(tmp_path / "theirs", tmp_path / "run")
    page = (tmp_path / "run/report.html").read_text()
    assert said in page and ("samples: " in page) is bool(said) and len(run.rows) == len(names)


def _lose(folder, layout):
    """Of three whole samples the first loses its end, the second its steps (of checkpoints: one in between)."""
    at = folder / suite.NAME / "place"
    if layout is checkpoints:
        (folder / "checkpoint-200" / suite.NAME / "place/00000.mp4").unlink()
        (folder / "checkpoint-100" / suite.NAME / "place/00001.mp4").unlink()
        return
    (at / "00000.mp4").unlink()
    for path in (at / "00001_steps").iterdir():
        path.unlink()
    (at / "00001_steps").rmdir()
    (at / "00001_noise_schedule.json").unlink()


@pytest.mark.parametrize(
    ("layout", "said"),
    [(sensenova, ("the final video is missing", "its steps are missing")),
     (checkpoints, ("checkpoint 200, which others have, is missing", "checkpoint 100, which others have, is missing"))],
)  # fmt: skip
def test_samples_without_their_end_are_told_and_left_out_of_the_final_number(layout, said, tmp_path):
    """The first sample's last step is right, too, and is no final video; the second has nothing but one."""
    layout(tmp_path / "theirs")
    _lose(tmp_path / "theirs", layout)
    run = scored(tmp_path / "theirs", tmp_path / "run")
    page = (tmp_path / "run/report.html").read_text()
    assert all(f"Of 1 of 3 samples: {words}." in page for words in said)
    (finding,) = run.findings
    assert finding.number.n == 2 and "1 of 3 have none, and are left out" in finding.statement
    steps = run.rows[run.rows.kind == "steps"]
    assert set(steps[steps.final.astype(bool)].problem) == {f"{suite.NAME}/place/0000{i}" for i in (1, 2)}
    first, second = (steps[steps.problem == f"{suite.NAME}/place/0000{i}"] for i in (0, 1))
    assert first.distance.isna().all() and second.step.max() == steps.step.max()
    assert len(second) == (1 if layout is sensenova else 2)


def test_steps_alone_end_where_the_others_do(tmp_path):
    """No final videos at all: the last step stands for it, where a sample has as many as the others, or as its schedule lists."""
    for name, steps, schedule in (("a", 3, 0), ("b", 2, 0), ("c", 2, 2), ("d", 2, 3)):
        for k in range(steps):
            put(tmp_path / "theirs" / name / "steps" / f"step_{k:03d}.mp4", ITEMS[0].video)
        if schedule:
            listed = [{"step": k, "sigma": 0.9} for k in range(schedule)]
            (tmp_path / "theirs" / name / "noise_schedule.json").write_text(json.dumps(listed))
    found = {sample.key: sample for sample in find(tmp_path / "theirs")}
    assert {key: sample.ended for key, sample in found.items()} == {"a": True, "b": False, "c": True, "d": False}
    assert lacking(found["b"]) == "step 2, which others have, is missing" and lacking(found["c"]) == ""
    assert lacking(found["d"]) == "step 2 of its noise schedule is missing"
    put(tmp_path / "theirs/a/generated.mp4", ITEMS[0].video)
    put(tmp_path / "theirs/e/generated.mp4", ITEMS[0].video)
    put(tmp_path / "theirs/e/ground_truth.mp4", ITEMS[0].video)
    again = {sample.key: (len(sample.steps), sample.ended, lacking(sample)) for sample in find(tmp_path / "theirs")}
    assert again["e"] == (0, True, "its steps are missing") and again["c"] == (2, False, "the final video is missing")


@pytest.mark.parametrize(
    ("name", "schedule", "said"),
    [("step_1.mp4", None, "has step 1 twice, as step_001.mp4 and step_1.mp4"), ("schritt_2.mp4", None, "is called otherwise"),
     (None, "[]", "lists no step"), (None, "[1]", "is no noise schedule"), (None, "{", "is no noise schedule")],
)  # fmt: skip
def test_names_and_schedules_that_do_not_fit_are_refused(name, schedule, said, tmp_path):
    for file in ("step_000.mp4", "step_001.mp4", *([name] if name else [])):
        put(tmp_path / "theirs/steps" / file, ITEMS[0].video)
    if schedule is not None:
        (tmp_path / "theirs/noise_schedule.json").write_text(schedule)
    with pytest.raises(InterpError, match=said):
        find(tmp_path / "theirs")


def test_labels_by_people(tmp_path):
    flat(tmp_path / "theirs")
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        lines = [("video", "status", "answer"), ("steps/step_001.mp4", "wrong", "late"), ("generated.mp4", "solved", "left")]
        csv.writer(file).writerows([*lines, ("steps/step_000.mp4", "", "")])
    run = scored(tmp_path / "theirs", tmp_path / "run", labels=str(tmp_path / "labels.csv"))
    rows = run.rows.set_index("step")
    inside = scored(tmp_path / "theirs/steps", tmp_path / "inside").rows  # the folder of the steps itself
    assert inside.step.to_list() == rows.index.to_list()
    assert rows.status[1] == "wrong" and rows.answer[3] == "left" and rows.status[[0, 2]].isna().all()
    (tmp_path / "labels.csv").write_text("video,Status,status,anwser,rater\n")
    with pytest.raises(InterpError, match="has the column 'Status': status must be written so"):
        scored(tmp_path / "theirs", tmp_path / "other", labels=str(tmp_path / "labels.csv"))
    (tmp_path / "labels.csv").write_text("video,status,anwser,rater\n")
    with pytest.raises(InterpError, match="has the column 'anwser': answer must be written so"):
        scored(tmp_path / "theirs", tmp_path / "other", labels=str(tmp_path / "labels.csv"))
    (tmp_path / "labels.csv").write_text("")
    with pytest.raises(InterpError, match="of an empty file"):
        scored(tmp_path / "theirs", tmp_path / "other", labels=str(tmp_path / "labels.csv"))
    for line, message in (("nowhere.mp4,solved", "is no video of"), ("generated.mp4,good", r"line 2: the status is 'good'")):
        (tmp_path / "labels.csv").write_text(f"video,status\n{line}\n")
        with pytest.raises(InterpError, match=message):
            scored(tmp_path / "theirs", tmp_path / "other", labels=str(tmp_path / "labels.csv"))


def test_nobody_judges_and_nothing_dies(tmp_path):
    flat(tmp_path / "theirs")
    run = scored(tmp_path / "theirs", tmp_path / "run")
    assert run.rows.status.isna().all() and not run.findings
    distances = run.rows.sort_values("step").distance.to_list()
    assert distances[-1] == 0.0 and distances[0] > 0.01
    assert "Nobody judged these videos" in (tmp_path / "run/report.html").read_text()


def test_another_video_is_another_run(tmp_path):
    flat(tmp_path / "theirs")
    scored(tmp_path / "theirs", tmp_path / "run")
    put(tmp_path / "theirs/steps/step_000.mp4", frozen(ITEMS[0].video))
    with pytest.raises(RunError, match=r"--from-steps: steps/step_000\.mp4 has changed"):
        scored(tmp_path / "theirs", tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"items": 3}, "out items"), ({"twins": 1}, "out twins"), ({"labels": "a.csv", "scorer": "motion"}, "labels are")],
)  # fmt: skip
def test_settings_that_have_no_part(settings, message):
    with pytest.raises(ValueError, match=message):
        ChainOfStepsConfig(from_steps="x", **settings)
    with pytest.raises(ValueError, match="give that, too"):
        ChainOfStepsConfig(truth="x")


@pytest.mark.parametrize("layout", ["sensenova", "vbvr-checkpoints"])
def test_what_is_exported_is_read_with_the_same_verdicts(layout, organism, tmp_path):
    small = {"tasks": ("place",), "items": 2, "sweep_items": 0, "fewer_items": 0, "num_inference_steps": 3}
    run = analyses.run("chain-of-steps", model=organism, out=tmp_path / "run", workers=1, **small)
    written = export(run, tmp_path / "out", layout, organism)
    assert len(written) == 2 * 4 and len((tmp_path / "out/labels.csv").read_text().splitlines()) == 9
    read = scored(tmp_path / "out", tmp_path / "again").rows
    read = read[read.kind == "steps"].sort_values(["problem", "step"], kind="stable")
    held = run.rows.sort_values(["problem", "step"], kind="stable")
    assert read.status.to_list() == held.status.to_list() and read.answer.to_list() == held.answer.to_list()
    if layout == "sensenova":
        assert read.sigma.to_list() == pytest.approx(held.sigma.to_list())


TOLD = """
from cos_interp.tasks import TASKS, Case, ClipTask

class Told(ClipTask):
    name = "told"

    def cases(self):
        for seed in range(2):
            item = TASKS["place"].sample(seed)
            yield Case(f"s{seed}", item.prompt, item.first_frame, {"seed": seed, "template": "dot.png"}, item.video)

    def judge(self, video, case):
        same = (case.image == TASKS["place"].sample(case.expected["seed"]).first_frame).all()
        dot = (case.folder / case.expected["template"]).is_file()
        return {"status": "solved" if video.mean() > 60 else "wrong",
                "answer": f"{case.prompt} {case.expected} {same} {dot} {len(case.truth)}", "readings": {"bright": video.mean()}}
"""


@pytest.mark.parametrize("layout", ["sensenova", "vbvr-checkpoints"])
def test_what_is_exported_of_other_tasks_is_scored_again_by_their_own_judge(layout, organism, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a case without a folder has its files
    (tmp_path / "told.py").write_text(TOLD)
    (tmp_path / "dot.png").write_bytes(b"any")
    small = {"tasks": ("told.py:Told",), "items": 2, "sweep_items": 0, "fewer_items": 0, "num_inference_steps": 2}
    run = analyses.run("chain-of-steps", model=organism, out=tmp_path / "run", workers=1, **small)
    export(run, tmp_path / "out", layout, organism, execute=True)
    assert (tmp_path / "out/truth/own/told/00001/dot.png").read_bytes() == b"any"
    settings = {"truth": str(tmp_path / "out/truth"), "scorer": "told.py:Told"}
    read = scored(tmp_path / "out", tmp_path / "again", **settings).rows
    read = read[read.kind == "steps"].sort_values(["problem", "step"], kind="stable")
    held = run.rows.sort_values(["problem", "step"], kind="stable")
    assert len(read) == len(held) == 6 and read.status.isin(["solved", "wrong"]).all()
    assert read.answer.to_list() == held.answer.to_list() and held.answer.str.contains("True True 9").all()
    assert read["reading bright"].to_list() == pytest.approx(held["reading bright"].to_list(), abs=2)
    (tmp_path / "out/truth/own/told/00001/metadata.json").write_text("{")
    with pytest.raises(InterpError, match=r"00001/metadata.json is no JSON"):
        scored(tmp_path / "out", tmp_path / "other", **settings)


def test_what_cannot_be_written_is_said_before_anything_is_generated(organism, tmp_path):
    (tmp_path / "odd.py").write_text(TOLD.replace('"seed": seed,', '"seed": seed, "set": {1},'))
    small = {"tasks": (f"{tmp_path}/odd.py:Told",), "items": 1, "sweep_items": 0, "fewer_items": 0, "num_inference_steps": 2}
    run = analyses.run("chain-of-steps", model=organism, out=tmp_path / "run", workers=1, **small)
    with pytest.raises(RunError, match="expected of s0 cannot be written as JSON"):
        export(run, tmp_path / "out", "sensenova", organism, execute=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_export_that_was_killed_is_made_by_the_same_command(prompts, tmp_path):
    analyses.run("self-correction", model="tiny:wan2.1", prompts=prompts, num_inference_steps=2, out=tmp_path / "run", workers=1)
    export_to = lambda name: cli.app(["export", "steps", str(tmp_path / "run"), str(tmp_path / name)], standalone_mode=False)

    def killed():
        with at_boundary(9):  # in its third video
            export_to("out")

    assert os.WIFSIGNALED(in_a_child(killed)) and any((tmp_path / "out").iterdir())
    export_to("out")
    export_to("whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_the_command_needs_no_model(tmp_path):
    flat(tmp_path / "theirs")
    command = ["analyze", "chain-of-steps", "--from-steps", str(tmp_path / "theirs"), "--scorer", "motion", "--out"]
    done = subprocess.run(
        [sys.executable, "-m", "cos_interp.cli", *command, str(tmp_path / "run"), "--model", "nowhere"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
