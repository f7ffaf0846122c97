"""The site of docs/ builds without a warning and asks nothing of the network, when it is built or when it is read."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from overheard import overheard

from cos_interp import interp, probes, tasks
from cos_interp.analyses.driver.registry import entries
from cos_interp.analyses.driver.rules import rules

pytest.importorskip("furo", reason="furo is not installed: pip install 'cos-interp[docs]'")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    proxy = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")  # where nobody answers
    env = {**os.environ, **proxy, "PYTHONPATH": str(ROOT / "src")}
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-d",
        str(folder / "trees"),
        str(ROOT / "docs"),
        str(folder / "html"),
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_every_experiment_has_its_page_with_its_equation_and_its_rules(site):
    text = {name: unescape((site / "experiments" / f"{name}.html").read_text()) for name in entries()}
    assert all('<div class="math-block" tabindex="0"><math' in page and "$$" not in page for page in text.values())
    everything = "".join(text.values())
    assert all(f">{key}<" in everything for key in rules())


def test_every_name_of_the_faces_is_documented(site):
    for room in (interp, probes, tasks):
        page = (site / "api" / f"{room.__name__.rpartition('.')[2]}.html").read_text()
        lacking = [name for name in room.__all__ if not re.search(rf'id="{re.escape(room.__name__)}\.{name}"', page)]
        assert not set(lacking) - {"tiny", "TASKS"}, lacking  # a module, and a dictionary without a docstring of its own


def test_nothing_is_fetched(site):
    outside = re.compile(
        r'(?:src|href)="(https?:)?//[^"]*"[^>]*(?:stylesheet|preconnect)|<(?:script|img|iframe)[^>]*src="(?:https?:)?//|@import|url\(["\']?(?:https?:)?//'
    )
    for path in (*site.rglob("*.html"), *site.rglob("*.css")):
        assert not outside.search(path.read_text()), path


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")
def test_pages_open_from_disk_in_silence(site):
    play = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'cos-interp[test]'")
    heard: list[str] = []
    with play.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = overheard(browser.new_page(), heard)
        for name in ("index", "architecture", "experiments/patching", "api/interp"):
            page.goto((site / f"{name}.html").as_uri(), timeout=120_000)
            assert page.locator("h1").count() == 1
        box = page.goto((site / "experiments/patching.html").as_uri()) and page.locator("math").first.bounding_box()
        assert box and box["width"] > 100 and box["height"] > 20  # drawn as an equation, not as a line of text
        browser.close()
    assert heard == []
