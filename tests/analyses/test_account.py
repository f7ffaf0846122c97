"""The account: chapters in the order of the story, every run's numbers, and what does not replicate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.estimates import Mean
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.rules import judge
from cos_interp.analyses.posterior import PosteriorConfig
from cos_interp.analyses.reporting import account, formation
from cos_interp.analyses.steering import SteeringConfig
from cos_interp.cli import app
from cos_interp.reports import figures
from tests.made_up_runs import layers_run

BARS = pd.DataFrame({"name": ["a"], "mean": [0.5], "low": [0.4], "high": [0.6]})
DRAWN = Report(
    ["The circuit: cross of layer 1.", "another line"], {}, "",
    figures={"a.svg": figures.bars(BARS, "y")}, told={"question": "Why?"},
)  # fmt: skip


def run(name: str, model: str, values: list[float], key: str, config):
    finding = judge(key, Mean(values), "it goes further by", Mean([0.0] * len(values)).number())
    made = layers_run(model, 2, 2)
    facts = made.facts | {"model": {"name": model, "digest": ""}, "command": f"cos analyze {name} --model {model}"}
    return replace(made, name=name, config=config, findings=(finding,), facts=facts)


def test_chapters_come_in_the_order_of_the_story_and_differences_are_said():
    steering = [
        run("steering", model, [value, value + 0.1] * 8, "steering.donor-free", SteeringConfig(task="place", confirm=True))
        for model, value in (("organism:seed1", 0.9), ("organism:seed2", 0.1))
    ]
    posterior = [run("posterior", "/home/me/mine", [0.2, 0.3] * 8, "posterior.exact", PosteriorConfig())]
    made = [account.Chapter("posterior", posterior, [DRAWN]), account.Chapter("steering", steering, [DRAWN, DRAWN])]
    text = account.article(made, "In plain words.")
    assert text.index("In plain words.") < text.index(account.PREFACE)
    assert text.index("## 1. What the model believes") < text.index("## 2. One vector, without a donor")
    assert "/home/me" not in text  # what is published shows no folder of this machine
    assert "/home/me" not in text.replace("--model /home/me/mine", "") and "**mine: It goes further by 0.25 (95 %" in text
    assert "(1 reproduced, 1 refuted)" in text and "(1 reproduced)" in text
    assert text.count("| none ran | reproduced (without a twin) |") == 2 and "| none ran | refuted |" in text
    assert "| organism:seed2, place, unseen items | 0.15 (95 % interval" in text
    assert "![One vector, without a donor, organism:seed1, place, unseen items](media/steering.svg)" in text
    assert "- organism:seed2, place, unseen items: the circuit: cross of layer 1." in text and "another line" not in text
    assert "- organism:seed2, place, unseen items: `cos analyze steering --model organism:seed2`" in text


def test_runs_of_something_else_and_none_are_refused(tmp_path):
    with pytest.raises(RunError, match="is a run of layers: the account has posterior, seed-choice, circuit, steering"):
        account.chapters([layers_run("a", 2, 2)], {})
    with pytest.raises(RunError, match="no run was given"):
        account.chapters([], {})
    found = CliRunner().invoke(app, ["report", "account", str(tmp_path)])
    assert found.exit_code and "holds no run" in str(found.output) + str(found.exception)


def test_a_dossier_stands_for_the_runs_in_it(tmp_path):
    for name in ("circuit", "posterior", "layers"):
        (tmp_path / "all" / name).mkdir(parents=True)
        (tmp_path / "all" / name / "run.json").write_text("{}")
    assert list(account.folders([tmp_path / "all", tmp_path / "other"])) == [
        tmp_path / "all" / "posterior", tmp_path / "all" / "circuit", Path(tmp_path / "other"),
    ]  # fmt: skip


def test_what_forms_along_a_training_is_drawn_from_the_deciding_numbers(tmp_path):
    """Two checkpoints; another task and a further seed of the training are no part of it."""
    made = [
        run("steering", model, [value, value + 0.1] * 8, "steering.donor-free", SteeringConfig(task=task))
        for model, value, task in (
            ("organism:seed1", 0.9, "maze"), ("organism:young", 0.0, "maze"), ("organism:young", 0.5, "place"),
            ("organism:seed2", 0.4, "maze"),
        )
    ]  # fmt: skip
    twin = replace(made[0].findings[0], twins=(Mean([0.0, 0.02] * 8).number(), Mean([]).number()))
    made[0] = replace(made[0], findings=(twin,))
    steps = formation.steps_of(["organism:seed1=12000", "organism:young=4000"])
    found = formation.along({"steering": made, "posterior": []}, steps)
    assert list(found) == ["steering"]
    assert [(at, model) for at, model, _ in found["steering"]] == [(4000, "organism:young"), (12000, "organism:seed1")]
    drawing = formation.drawn(found, account.CHAPTERS)
    shown = drawing.shown.points.set_index(["curve", "trained"])["mean"]
    assert shown["the model", 4000] == pytest.approx(0.05) and shown["the model", 12000] == pytest.approx(0.95)
    assert shown[formation.RANDOM, 0] == pytest.approx(0.01) and shown[formation.NEEDED, 0] == 0.5
    text = account.article([account.Chapter("steering", made, [DRAWN] * 4)], formed=found)
    assert "## When does it form?" in text and "media/formation.svg" in text
    assert (
        "| One vector, without a donor | organism:young | 4,000 | 0.05 (95 %" in text
        and "| random weights | 0 | no value (n = 0)" in text
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["organism:seed1"], "give NAME=STEPS"), (["a=b"], "give NAME=STEPS"), (["a=1", "a=2"], "once for each model"),
        (["other=1"], "no run is of it; there are runs of a, b"), (["a=1"], "runs of two of these models"),
    ],
)  # fmt: skip
def test_checkpoints_that_make_no_training_are_refused(given, said):
    made = [run("steering", model, [0.1, 0.2] * 8, "steering.donor-free", SteeringConfig()) for model in ("a", "b")]
    with pytest.raises(RunError, match=said):
        formation.along({"steering": made}, formation.steps_of(given))
