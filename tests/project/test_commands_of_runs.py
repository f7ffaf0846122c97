"""``cos runs`` and ``cos report``, and commands that write a folder: what is there is shown, and never written over."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import faults
import pytest
from typer.testing import CliRunner

from cos_interp import analyses
from cos_interp.analyses.driver.errors import RunError
from cos_interp.cli import app
from cos_interp.interp.files import read_sealed_json, sealed_json
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


@pytest.mark.parametrize("name", ["page.json", "findings.json", "report.html"])
def test_a_page_is_drawn_again_whatever_became_of_it(runs, tmp_path, name):
    folder = tmp_path / "run"
    shutil.copytree(runs / "good", folder)
    whole = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(b"{")):
        damage(folder / name)
        with pytest.raises(Failure):
            said("runs", "verify", str(folder))
        if name != "report.html":
            with pytest.raises(Failure, match=rf"{name}|findings"):
                said("runs", "show", str(folder))
            assert json.loads(said("runs", "show", str(folder), "--json"))["unread"]
        said("report", "draw", str(folder))
        assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == whole


def test_a_page_is_not_drawn_beside_damaged_results(runs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs / "good", folder)
    whole = (folder / "results.parquet").read_bytes()
    for damage in (lambda path: path.write_bytes(whole[:-1] + b"!"), lambda path: path.unlink()):
        damage(folder / "results.parquet")
        before = faults.content(folder)
        with pytest.raises(RunError, match=r"results\.parquet (has been changed|cannot be read).*makes it again"):
            said("report", "draw", str(folder))
        assert faults.content(folder) == before


def test_the_page_and_show_tell_what_a_run_was_begun_with(runs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs / "good", folder)
    facts = read_sealed_json((folder / "run.json").read_bytes())
    (folder / "run.json").write_bytes(sealed_json({**facts, "earlier": [{**facts["versions"], "torch": "0.7.old"}]}))
    assert "begun with: torch 0.7.old" in said("runs", "show", str(folder))
    said("report", "draw", str(folder))
    assert "Begun with other versions, of which some numbers may be: torch 0.7.old." in (folder / "report.html").read_text()
    assert "begun with" not in said("runs", "show", str(runs / "good"))


def test_a_run_is_removed_and_nothing_else(runs):
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


def test_a_run_is_listed_shown_verified_and_loaded_without_torch(runs):
    code = f"""
import sys
from cos_interp import analyses
from cos_interp.cli import app
for command in ("list {runs}", "show {runs / "good"}", "verify {runs / "good"}"):
    app(["runs", *command.split()], standalone_mode=False)
assert len(analyses.load({str(runs / "good")!r}).rows)
assert not {{"torch", "diffusers", "nnsight"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_items_of_a_list_are_those_of_the_users_file(prompts, tmp_path):
    settings = {"num_inference_steps": 2, "prompts": prompts, "model": "tiny:wan2.1"}
    analyses.run("self-correction", out=tmp_path / "own", workers=1, **settings)
    assert "  2 items  complete" in said("runs", "list", str(tmp_path))


@pytest.mark.slow
def test_a_damaged_unit_is_named_in_one_line(runs, tmp_path):
    shutil.copytree(runs / "good", tmp_path / "run")
    unit = next((tmp_path / "run" / "shards").iterdir())
    unit.write_bytes(unit.read_bytes()[:-1])
    (tmp_path / "run" / "results.parquet").write_bytes(b"lost")
    command = ["analyze", "self-correction", "--items", "1", "--tasks", "maze", "--num-steps", "2", "--out", tmp_path / "run"]
    done = subprocess.run([sys.executable, "-m", "cos_interp.cli", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"warning: {unit} is damaged: it is not used, and computed again" in done.stderr.splitlines()
    assert re.search(r"^warning: .*results.parquet has been changed .* it is made again of the units$", done.stderr, re.MULTILINE)
    said("runs", "verify", str(tmp_path / "run"))
