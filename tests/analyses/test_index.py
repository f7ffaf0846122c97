"""All runs below a folder on one page, whatever their state, and whatever their names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from stores import ASKED, asked
from typer.testing import CliRunner

from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.reporting.index import index, matrix, read
from cos_interp.cli import app
from cos_interp.interp.files import plain
from cos_interp.interp.terminal import Failure

FOUND = Finding("claim", "reproduced", "it moves", Number(0.5, 0.4, 0.6, 30), "nothing", Number(0.0), "rule", "x.c", 0.1)


def finished(folder: Path, facts: dict = ASKED, *findings: Finding) -> None:
    """A run without units, with findings and a page."""
    import pandas as pd

    said = json.dumps(plain([finding.data() for finding in findings])).encode()
    with RunStore.open(folder, facts) as store:
        store.write_results(pd.DataFrame({"i": [0]}))
        store.write_page({"report.html": b"<p>", "findings.json": said})
        store.complete()


@pytest.fixture
def folder(tmp_path):
    """Five runs: two good ones of two models, a cut one, one that another program wrote, one that was interrupted."""
    runs = tmp_path / "runs"
    finished(runs / "good", ASKED, FOUND)
    other = {**ASKED, "model": {"name": str(tmp_path / "private" / "mine"), "digest": "1" * 64, "parts": {}}}
    finished(runs / "deep" / "er" / 'b"><b>x', other, replace(FOUND, verdict="refuted"))
    finished(runs / "cut", ASKED, FOUND)
    (runs / "cut" / "findings.json").write_text("[")
    (runs / "foreign").mkdir()
    (runs / "foreign" / "run.json").write_text("{}")
    with RunStore.open(runs / "half", asked(a=2)):
        pass
    return runs


def test_a_damaged_run_hides_no_other(folder):
    page, data = index(folder, folder / "index.html")
    states = {row["run"]: row["state"] for row in data}
    whole = {'deep/er/b"><b>x': "complete", "good": "complete"}
    assert states == {**whole, "cut": "damaged", "foreign": "damaged", "half": "running"}
    assert "2 finished runs of 1 experiment with 2 models: 1 reproduced, 1 refuted" in page and "1 unfinished, 2 damaged" in page
    assert "has been changed since it was written" in page and "its seal does not fit" in page


def test_links_lead_to_the_pages_and_names_stay_text(folder):
    page, _ = index(folder, folder.parent / "page.html")
    assert 'href="runs/deep/er/b%22%3E%3Cb%3Ex/report.html"' in page and "<b>x" not in page
    assert 'href="good/report.html"' in index(folder, folder / "index.html")[0]
    assert str(folder.parent) not in page and "cut/findings.json has been changed" in page


def test_the_same_folder_gives_the_same_bytes(folder):
    out = folder / "index.html"
    out.write_text(index(folder, out)[0])
    assert index(folder, out)[0] == out.read_text()


def test_verdicts_stand_by_claim_and_model(folder):
    runs = [read(folder / "good"), read(folder / "good"), read(folder / "deep/er" / 'b"><b>x')]
    found = matrix(runs)
    assert found["models"] == ["m, weights 0", "mine, weights 11111111"]
    assert found["rows"] == [{"claim": "claim", "cells": [[("reproduced", 2)], [("refuted", 1)]]}]


def test_all_files_are_read_where_it_is_asked(folder):
    (folder / "good" / "report.html").write_text("changed")
    assert read(folder / "good").state == "complete"
    found = read(folder / "good", verify=True)
    assert found.state == "damaged" and "report.html has been changed" in found.why


def test_twins_and_folders_of_units_are_no_runs_of_their_own(folder):
    finished(folder / "good" / "twin-0")
    finished(folder / "good" / "shards" / "x")
    assert [row["run"] for row in index(folder, folder / "i.html")[1]].count("good") == 1
    assert not any("good/" in row["run"] for row in index(folder, folder / "i.html")[1])


def test_by_the_command(folder, tmp_path):
    done = CliRunner().invoke(app, ["report", "index", str(folder)], catch_exceptions=False)
    assert "5 runs, 2 damaged" in done.output and (folder / "index.html").is_file()
    said = CliRunner().invoke(app, ["report", "index", str(folder), "--json", "--out", str(tmp_path / "i.html")])
    assert len(json.loads(said.output)["runs"]) == 5
    with pytest.raises(Failure, match="is a run folder"):
        CliRunner().invoke(app, ["report", "index", str(folder / "good")], catch_exceptions=False)
    for place in ("compare.html", "media/new/compare.html", "report.html"):  # what is there is sealed
        with pytest.raises(Failure, match="is a run folder"):
            asked = ["report", "compare", str(folder / "good"), str(folder / "good"), "--out", str(folder / "good" / place)]
            CliRunner().invoke(app, asked, catch_exceptions=False)
    with pytest.raises(RunError, match="is no folder"):
        index(folder / "nowhere", tmp_path / "i.html")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "There is no run in this folder" in index(empty, tmp_path / "i.html")[0]
