"""Pictures of a page that several processes draw: the same bytes as those that one draws, which forks nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cos_interp import analyses
from cos_interp.analyses import EXPERIMENTS
from cos_interp.analyses.driver import experiment, pictures
from cos_interp.analyses.driver.drawing import report_of
from cos_interp.analyses.driver.parts import Reel, Section, Shown
from cos_interp.reports.drawing import Drawing, Numbers
from cos_interp.reports.figures import Curve, Panel, heat_maps, panels
from cos_interp.reports.style import drawn_on, paper


def sections() -> list[Section]:
    line = Curve("c", pd.DataFrame({"step": [0, 1], "mean": [0.1, 0.2], "low": [0.0, 0.1], "high": [0.2, 9.0]}))
    maps = heat_maps([("a", pd.DataFrame([[0.1, -0.9]], columns=[0, 4]))], {0: 1.0, 4: 0.5}, "effect")
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16, 3), np.uint8)
    reels = [Reel(name, "", clips, [Shown("x"), Shown("y")]) for name in "ab"]
    return [
        Section("curves", panels([Panel("p", [line], "step", "step", "value")])), Section("maps", maps), Section("v", reels=reels)
    ]  # fmt: skip


def drawn(workers: int) -> list[object]:
    made = sections()
    pictures.make(made, workers)
    shown = [part for section in made for part in (section.figure, *section.reels) if part is not None]
    assert all({"picture", "sheet"} & set(vars(part)) for part in shown)
    return [part.picture if isinstance(part, Drawing) else part.sheet for part in shown]


def test_several_processes_draw_the_same_bytes():
    assert drawn(1) == drawn(2) == drawn(9)
    with paper():
        printed = drawn(2)
        assert printed == drawn(1) and printed[0].pdf.startswith(b"%PDF")


def who_draws(workers: int) -> set[int]:
    """The processes that draw four figures, each of which writes its own number."""

    def draw():
        figure = drawn_on((2, 1))
        figure.suptitle(f"by {os.getpid()}")
        return figure

    made = [Section(str(n), Drawing(draw, Numbers())) for n in range(4)]
    pictures.make(made, workers)
    return {int(re.search(r"<!-- by (\d+) -->", section.figure.svg)[1]) for section in made}


def test_one_worker_draws_here_and_two_elsewhere():
    assert who_draws(1) == {os.getpid()}
    assert who_draws(2) and os.getpid() not in who_draws(2)


def test_a_run_of_one_worker_forks_nothing_and_has_the_same_page(tmp_path, monkeypatch):
    asked = {"items": 1, "tasks": ("maze",), "num_inference_steps": 2}
    forked, fork = [], os.fork
    monkeypatch.setattr(os, "fork", lambda: forked.append(1) or fork())
    analyses.run("chain-of-steps", out=tmp_path / "run", workers=1, **asked)
    assert not forked
    written = {path.relative_to(tmp_path / "run"): path.read_bytes() for path in _page(tmp_path / "run")}
    for count in (1, 2):
        monkeypatch.setattr(experiment, "default_workers", lambda count=count: count)
        found = report_of(tmp_path / "run", EXPERIMENTS)
        assert {Path(name): data for name, data in found.files().items()} == written and len(found.figures) > 1
        assert bool(forked) == (count > 1)


def _page(folder: Path) -> list[Path]:
    return [folder / "report.html", folder / "findings.json", *(folder / "media").iterdir()]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_figure_is_raised(workers):
    def broken():
        raise ValueError("no such column")

    with pytest.raises(ValueError, match="no such column"):
        pictures.make([Section(str(n), Drawing(broken, Numbers())) for n in range(2)], workers)
