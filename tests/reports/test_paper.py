"""Figures and words for a paper: from a real small run, with the numbers of its page, and the same bytes again."""

from __future__ import annotations

import io
import re

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cos_interp import analyses
from cos_interp.analyses import EXPERIMENTS
from cos_interp.analyses.chain_of_steps import ChainOfStepsConfig
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.reporting.methods import methods
from cos_interp.analyses.reporting.paper import files
from cos_interp.cli import app
from cos_interp.interp.terminal import Failure
from cos_interp.reports import figures, grid_maps
from cos_interp.reports.style import paper


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    analyses.run("self-correction", out=folder, workers=1, items=1, tasks=("maze",), num_inference_steps=2)
    return folder


@pytest.fixture(scope="module")
def made(run):
    return files(run, EXPERIMENTS)


def test_every_figure_has_three_files_and_they_repeat(run, made):
    stems = {name.removesuffix(".svg") for name in made if name.endswith(".svg")}
    assert stems and set(made) == {f"{stem}.{kind}" for stem in stems for kind in ("svg", "pdf", "csv")} | {"methods.md"}
    assert all(made[f"{stem}.svg"].startswith(b"<svg") and made[f"{stem}.pdf"].startswith(b"%PDF") for stem in stems)
    assert made == files(run, EXPERIMENTS)
    drawn = {path.stem for path in (run / "media").glob("*.svg")}
    assert stems == drawn and made[f"{min(stems)}.svg"] != (run / "media" / f"{min(stems)}.svg").read_bytes()  # another style


def test_the_numbers_are_those_of_the_rows(run, made):
    rows = analyses.load(run).rows
    (name,) = [name for name in made if name.endswith(".csv")]
    table = pd.read_csv(io.BytesIO(made[name]))
    for status, part in table[table.panel == "readings"].groupby("curve"):
        right = rows.groupby("step").status.apply(lambda at, status=status: float((at == status).mean()))
        assert part.set_index("step")["mean"].to_dict() == right.to_dict(), status


def test_methods_say_what_was_run(made):
    text = made["methods.md"].decode()
    for words in ("organism (weights sha256", "2 denoising steps without classifier-free guidance", "1 items of maze were",
                  "seed (0)", "what decides is", "cos analyze self-correction --num-steps 2", "torch "):  # fmt: skip
        assert words in text, words
    assert "None" not in text and "nan" not in text.lower().split()


def test_methods_name_the_intervals_and_the_twins():
    said = {"guidance_scale": 3.5, "twins": 2, "confirm": True, "noises": 3, "negative_prompt": "blur"}
    config = ChainOfStepsConfig(model="/home/me/mine", **said)
    facts = {"model": {"name": "/home/me/mine", "digest": "", "revision": "main"}, "versions": {"torch": "2"}, "command": "cos x"}
    number = Number(0.5, 0.4, 0.6, 30, "paired shares")
    text = methods(config, facts, [Finding("c", "refuted", "s", number, "n", Number(0.0), "rule")], {})
    for words in ("mine (weights not hashed, revision main)", "guidance of scale 3.5", "led away from “blur”", "Newcombe",
                  "2 models with transformers of random weights", "no rule had seen", "noises 3"):  # fmt: skip
        assert words in text, words
    assert "/home" not in text.replace("cos x", "")


def test_a_paper_has_no_figure_wider_than_its_page():
    table = pd.DataFrame([[0.1, -0.9], [0.2, 0.3]], columns=[0, 4])
    usual = figures.matrix_maps([("a", table)] * 6, "x", "y", "z")
    narrow, again = (figures.matrix_maps([("a", table)] * 6, "x", "y", "z") for _ in range(2))
    width = lambda drawn: float(re.search(r'width="([\d.]+)pt"', drawn.svg)[1]) / 72
    assert width(usual) > 8 and usual.picture.pdf is None
    with paper():
        assert width(narrow) < 7.3 and narrow.picture.pdf.startswith(b"%PDF")
    assert again.svg == usual.svg  # the style is gone with the block
    assert narrow.table.equals(usual.table)


def test_maps_over_the_grid_know_their_numbers():
    values = np.arange(12.0).reshape(2, 2, 3)
    table = grid_maps.grid_maps([("a", values)], "x").table
    assert table.set_index(["frame", "row", "col"]).value[1, 0, 2] == values[1, 0, 2] and len(table) == 12


def test_by_the_command(run, tmp_path):
    done = CliRunner().invoke(app, ["report", "figures", str(run), str(tmp_path / "paper")], catch_exceptions=False)
    assert "methods.md" in done.output and (tmp_path / "paper" / "methods.md").is_file()
    (tmp_path / "paper" / "thesis.tex").write_text("x")
    with pytest.raises(Failure, match=r"thesis\.tex"):
        CliRunner().invoke(app, ["report", "figures", str(run), str(tmp_path / "paper")], catch_exceptions=False)
