"""Scorers and tasks from outside in experiments: what they say stands in the rows, and their code is part of the run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from cos_interp import analyses
from cos_interp.analyses.driver import identity
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.exporting import ActivationsConfig
from cos_interp.analyses.exporting.activations import export
from cos_interp.analyses.kit.problems import judge, problems
from cos_interp.analyses.probing import TrainConfig
from cos_interp.analyses.probing.data import targets_of
from cos_interp.analyses.probing.training import target_of
from cos_interp.interp import InterpError
from cos_interp.tasks import TASKS, grid
from cos_interp.tasks.video import encode_mp4

SMALL = {"num_inference_steps": 2}
RED = """
import helper

def judge(video, case):
    red = video[-1, ..., 0].mean() / 255
    return {"status": "solved" if red > helper.LEAST else "wrong", "answer": f"{red:.6f}", "readings": {"red": red}}

def grade(video, case):
    return {"red": video[-1, ..., 0].mean() / 255}
"""
CLIPS = """
import numpy as np
from cos_interp.tasks import TASKS, Case, ClipTask

class Ends(ClipTask):
    name = "ends"
    about = "the last frame is that of the true video"

    def cases(self):
        for seed in range(6):
            item = TASKS["place"].sample(seed)
            yield Case(f"scene-{seed}", item.prompt, item.first_frame, video=item.video)

    def judge(self, video, case):
        return bool(np.abs(video[-1].astype(float) - case.truth[-1]).mean() < 20)
"""


@pytest.fixture
def home(tmp_path):
    """A folder of a user's: two lines with pictures and true videos, a judge, a task of clips."""
    lines = []
    for i, name in enumerate(("maze", "place")):
        item = TASKS[name].sample(i)
        Image.fromarray(item.first_frame).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.mp4").write_bytes(encode_mp4(item.video))
        lines.append({"prompt": item.prompt, "image": f"{i}.png", "reference": f"{i}.mp4", "expected": {"least": 0.05}})
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "helper.py").write_text("LEAST = 0.5\n")
    (tmp_path / "red.py").write_text(RED)
    (tmp_path / "clips.py").write_text(CLIPS)
    return tmp_path


def asked(home, **more):
    return analyses.EXPERIMENTS["chain-of-steps"].config(prompts=str(home / "own.jsonl"), **SMALL, **more)


def test_a_judge_of_the_users_is_asked_at_every_step(home, organism):
    config = {"prompts": str(home / "own.jsonl"), "scorer": f"{home}/red.py:judge"}
    run = analyses.run("chain-of-steps", model=organism, out=home / "run", workers=1, **config, **SMALL)
    rows = run.rows
    assert rows.status.isin(["solved", "wrong"]).all() and len(rows) == 2 * 3
    frames = run.tensors("prompt-000-noise-0")["frames"].numpy()
    for step, row in enumerate(rows[rows.problem == "prompt-000"].itertuples()):
        red = frames[step, -1, ..., 0].mean() / 255  # the same, by hand
        assert float(row.answer) == pytest.approx(red, abs=1e-6) and row.status == ("solved" if red > 0.5 else "wrong")
    assert "reading red" in rows and (home / "run/report.html").read_text().count("Readings of the scorer") >= 1
    with pytest.raises(RunError, match="only its command executes"):
        analyses.draw(home / "run")
    (home / "helper.py").write_text("LEAST = 0.6\n")  # what the judge imported from its folder counts as well
    with pytest.raises(RunError, match=r"red.py:judge: helper.py has changed"):
        analyses.run("chain-of-steps", model=organism, out=home / "run", workers=1, **config, **SMALL)


def test_numbers_without_a_verdict_stay_numbers(home, organism):
    settings = {"prompts": str(home / "own.jsonl"), "scorer": f"{home}/red.py:grade"}
    run = analyses.run("chain-of-steps", model=organism, out=home / "run", workers=1, **settings, **SMALL)
    assert run.rows.status.isna().all() and run.rows["reading red"].between(0, 1).all() and not run.findings


def test_a_task_of_clips_is_run_with_its_judge(home, organism):
    settings = {"tasks": (f"{home}/clips.py:Ends",), "items": 2, "sweep_items": 0}
    run = analyses.run("chain-of-steps", model=organism, out=home / "run", workers=1, **settings, **SMALL)
    assert set(run.rows.task) == {"ends"} and run.rows.status.isin(["solved", "wrong"]).all()
    assert [p.case.name for p in problems(run.config)] == ["scene-0", "scene-1"]
    with pytest.raises(InterpError, match="task of clips, without cells"):
        analyses.run("swap", model=organism, out=home / "swap", tasks=settings["tasks"], items=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["noise", "ensemble", "layers", "memory", "self-correction", "recovery", "commitment"])
def test_a_scorer_serves_other_experiments(name, home, organism):
    fields = analyses.EXPERIMENTS[name].config.model_fields
    small = {"seeds": 2, "repeats": 1, "noises": 2, "batch": 14, "num_inference_steps": 2}
    settings = {k: v for k, v in small.items() if k in fields}
    run = analyses.run(
        name, model=organism, out=home / "run", workers=1, prompts=str(home / "own.jsonl"), scorer="motion", **settings
    )
    judged = run.rows[next(column for column in ("solved", "whose", "status") if column in run.rows)]
    assert judged.notna().any()


def test_a_task_of_the_grid_in_a_file_is_a_task(home, organism):
    (home / "again.py").write_text("from cos_interp.tasks.place import Place\n\nclass Again(Place):\n    name = 'again'\n")
    settings = {"tasks": (f"{home}/again.py:Again",), "items": 1, "sweep_items": 0}
    run = analyses.run("chain-of-steps", model=organism, out=home / "run", workers=1, **settings, **SMALL)
    assert set(run.rows.task) == {"again"} and "frame_1" in run.rows
    assert set(identity.code_of(run.config)[f"{home}/again.py:Again"]) >= {"again.py"}
    TASKS.pop("again")


def test_nothing_is_executed_to_read_a_run_or_its_settings(home):
    (home / "loud.py").write_text("raise SystemExit('executed')\n")
    config = asked(home, scorer=f"{home}/loud.py:judge")
    assert identity.is_of_own_code(config)
    with pytest.raises(InterpError, match="cannot be executed: SystemExit: executed"):
        problems(config)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"scorer": "nobody"}, "unknown scorer 'nobody'; there are reference"),
     ({"scorer": "motion", "scorer_cmd": "true"}, "give one of them")],
)  # fmt: skip
def test_settings_that_do_not_fit(given, message, home):
    with pytest.raises(ValueError, match=message):
        asked(home, **given)
    with pytest.raises(ValueError, match="the tasks' items have their verifier"):
        analyses.EXPERIMENTS["noise"].config(scorer="motion")


def test_ready_made_scorers_are_told_of_the_line(home):
    found = problems(asked(home, scorer="reference"))
    truth = TASKS["maze"].sample(0).video
    frozen = np.repeat(truth[:1], grid.FRAMES, 0)
    assert [judge(found[0], video).status for video in (truth, frozen)] == ["solved", "wrong"]
    assert not {"expected", "reference"} & set(found[0].call)
    (home / "0.mp4").unlink()
    with pytest.raises(InterpError, match=r"reference '0\.mp4' is no file"):
        problems(asked(home, scorer="reference"))


def test_a_page_says_on_how_many_videos_a_scorer_failed_and_why(tmp_path):
    (tmp_path / "own.jsonl").write_text('{"prompt": "a ball"}\n{"prompt": "a box"}\n')
    (tmp_path / "mine.py").write_text(
        "def judge(video, case):\n    if 'ball' in case.prompt:\n        raise SystemExit('no ball')\n    return True\n"
    )
    settings = {"model": "tiny:wan2.1", "prompts": str(tmp_path / "own.jsonl"), "scorer": f"{tmp_path}/mine.py:judge"}
    analyses.run("chain-of-steps", out=tmp_path / "run", workers=1, num_inference_steps=2, **settings)
    said = "The scorer failed on 3 of 6 videos, which have no verdict: SystemExit: no ball (3)."
    assert said in (tmp_path / "run/report.html").read_text()


OWN_GRID = """
from cos_interp.tasks import Label
from cos_interp.tasks.place import Place

class Own(Place):
    name = "own"
    readable = (*Place.readable, Label("seed_of_five", "reasoning", "the seed", tuple("01234"), lambda item: item.seed % 5))
"""


@pytest.fixture
def own_task(tmp_path):
    (tmp_path / "own.py").write_text(OWN_GRID)
    yield f"{tmp_path}/own.py:Own"
    TASKS.pop("own", None)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("patching", {"pairs": 1, "layers": (0,), "sites": ("hook_attn_out",), "frames": (0,), "tokens": ("object",)}),
     ("circuit", {"pairs": 1, "check_pairs": 0, "most": 1}),
     ("steering", {"pairs": 2, "check_pairs": 0, "layer": 1, "tokens": ("object",), "ranks": (1,)})],
)  # fmt: skip
def test_pairs_of_a_grid_task_in_a_file(name, settings, own_task, organism, tmp_path):
    run = analyses.run(name, model=organism, out=tmp_path / "run", workers=1, task=own_task, solved=False, **settings, **SMALL)
    assert run.facts["status"] == "complete" and run.facts["code"].keys() == {own_task} and len(run.rows)
    (tmp_path / "own.py").write_text(OWN_GRID + "\n")
    with pytest.raises(RunError, match=r"own.py:Own: own.py has changed"):
        analyses.run(name, model=organism, out=tmp_path / "run", workers=1, task=own_task, solved=False, **settings, **SMALL)


def test_labels_of_a_grid_task_in_a_file_are_known_before_they_are_asked_for(own_task, organism, tmp_path):
    config = TrainConfig(tasks=(own_task,), target="seed_of_five", items=8, layers=(0,), steps=(0,), folds=2, tokens=1, **SMALL)
    TASKS.pop("own", None)
    assert target_of("seed_of_five", config.tasks).tasks == ("own",)
    TASKS.pop("own", None)
    probed = analyses.EXPERIMENTS["probes"].config(tasks=(own_task,), targets=("seed_of_five",))
    assert [target.name for target in targets_of(probed)] == ["seed_of_five"]
    TASKS.pop("own", None)
    asked = ActivationsConfig(tasks=(own_task,), items=1, names=("blocks.0.hook_resid_post",), steps=(0,), **SMALL)
    held = export(asked, tmp_path / "rows", organism)
    assert "seed_of_five" in held["labels"] and "first_class" in held["labels"]
