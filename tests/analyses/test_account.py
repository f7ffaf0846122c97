"""The account: chapters in the order of the story, every run's numbers, and what does not replicate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.estimates import Mean
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.rules import judge
from cos_interp.analyses.posterior import PosteriorConfig
from cos_interp.analyses.reporting import account
from cos_interp.analyses.steering import SteeringConfig
from cos_interp.cli import app
from tests.made_up_runs import layers_run

DRAWN = Report(["The circuit: cross of layer 1.", "another line"], {}, "", figures={"a.svg": "<svg/>"}, told={"question": "Why?"})


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
