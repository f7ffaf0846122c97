"""``cos runs`` and ``cos report``, and commands that write a folder: what is there is shown, and never written over."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from cos_interp import analyses
from cos_interp.cli import app
from cos_interp.interp.terminal import Failure


def said(*arguments: str) -> str:
    found = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    small = {"items": 1, "tasks": ("maze",), "num_inference_steps": 2}
    analyses.run("self-correction", out=folder / "good", workers=1, **small)
    for name, content in (("damaged", b"{"), ("list", b"[]"), ("latin", b"\xff\xfe"), ("empty", b"")):
        (folder / name).mkdir()
        (folder / name / "run.json").write_bytes(content)
    return folder


def test_one_damaged_run_hides_no_other(runs):
    lines = said("runs", "list", str(runs)).splitlines()
    assert len(lines) == 5 and sum("damaged" in line for line in lines) >= 4
    good = next(line for line in lines if "/good" in line)
    assert re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d  \d\.\d MB  self-correction  organism  1 items  complete$", good)
    rows = json.loads(said("runs", "list", str(runs), "--json"))
    assert {row["status"][:8] for row in rows} == {"complete", "damaged:"}


def test_a_run_is_shown_drawn_again_and_verified(runs):
    shown = said("runs", "show", str(runs / "good"))
    assert "complete" in shown and "cos analyze self-correction" in shown and "not testable" in shown and "torch" in shown
    assert json.loads(said("runs", "show", str(runs / "good"), "--json"))["status"] == "complete"
    page = runs / "good" / "report.html"
    whole = page.read_bytes()
    page.write_text("lost")
    with pytest.raises(Failure, match=r"report\.html has been changed"):
        said("runs", "verify", str(runs / "good"))
    assert "Report:" in said("report", "draw", str(runs / "good"))
    assert page.read_bytes() == whole and "complete, every file is as it was written" in said(
        "runs", "verify", str(runs / "good")
    )


def test_a_run_is_removed_and_nothing_else(runs):
    import shutil

    shutil.copytree(runs / "good", runs / "copy")
    (runs / "copy" / "notes.txt").write_text("x")
    said("runs", "rm", str(runs / "copy"))
    assert [path.name for path in (runs / "copy").iterdir()] == ["notes.txt"]
    assert (runs / "good" / "run.json").is_file()


def test_the_version_is_said():
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", said("--version"))


@pytest.mark.parametrize("command", [["tasks", "export"], ["organism", "untrained"], ["organism", "train", "--out"],
                                     ["probe", "train", "--target", "on_path", "--out"]])  # fmt: skip
def test_a_folder_with_something_else_is_not_written(command, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(Failure, match=r"thesis\.tex|is not empty"):
        said(*command, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
