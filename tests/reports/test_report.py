"""The report: self-contained, escaped, and right in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.facts import Facts, LeftOut
from cos_interp.analyses.driver.pages import Clip
from cos_interp.analyses.patching import PairFacts, PatchingConfig, SideFacts
from cos_interp.analyses.patching.report import page
from cos_interp.reports import figures

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}</svg>&amp;'


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def parsed(text: str) -> Elements:
    parser = Elements()
    parser.feed(text)
    return parser


def made_up_result(text: str) -> AnalysisResult:
    """Rows with known values and hostile text everywhere where a user or a model could put some."""
    rows = [
        {
            "pair": f"{kind}-{i:03d}", "pair_kind": kind, "span": "single",
            "donor": donor, "site": "hook_resid_post", "step": k, "layer": layer,
            "head": None, "group": group, "frame": None, "sigma": 1 - 0.4 * k, "effect": 0.1 * k + 0.01 * layer + 0.02 * i,
            "outcome": "donor" if k and layer else "target", "share": 0.2, "moved": 0.1, "donor_shown": 0.3, "target_shown": 0.7,
        }
        for kind in ("prompt", "seed") for i in range(2) for k in (0, 1) for layer in (0, 1)
        for donor, group in (("clean", "all"), ("clean", text), ("random", "all"), ("self", "all"))
    ]  # fmt: skip
    frame = pd.DataFrame(rows).astype({"layer": "Int64", "head": "Int64", "frame": "Int64"})
    frame.loc[frame.donor == "self", "effect"] = 0.0
    side = SideFacts(prompt=text, answer=text, seed=1, item_seed=1, difficulty=3)
    pairs: dict[str, Facts] = {
        f"{kind}-{i:03d}-pair": PairFacts(
            pair=f"{kind}-{i:03d}", kind=kind, tried=1, sigmas=(1.0, 0.6, 0.0), corrupt=side, clean=side, controls=(text,),
            whole_state=False,
        )
        for kind in ("prompt", "seed") for i in range(2)
    }  # fmt: skip
    pairs["prompt-002-pair"] = LeftOut(reason=text)
    facts = {
        "block_calls": 5, "block_calls_minimum": 5, "model": {"name": text, "digest": None, "revision": text, "given": True},
        "versions": {"torch": text}, "command": f"cos analyze patching --model {text}",
    }  # fmt: skip
    config = PatchingConfig(model=text, num_inference_steps=2)
    return AnalysisResult("patching", config, frame, facts, pairs)


def build(text: str) -> str:
    """The page of a made-up result, with one clip."""
    return page(made_up_result(text), [Clip(f"prompt-000 {text}", text, np.zeros((9, 16, 16, 3), np.uint8))]).html


def test_hostile_text_stays_text():
    plain, hostile = (parsed(build(t)) for t in ("word", HOSTILE))
    assert [t for t in hostile.tags if t not in ("path", "g", "use", "defs")] == [
        t for t in plain.tags if t not in ("path", "g", "use", "defs")
    ]
    assert "script" not in hostile.tags
    assert not [name for name, _ in hostile.attributes if name.startswith("on")]


def test_nothing_is_loaded_from_elsewhere_and_bytes_repeat():
    text = build("word")
    assert text == build("word")
    for name, value in parsed(text).attributes:
        if name in ("src", "href", "xlink:href", "poster", "data", "action") and value:
            assert value.startswith(("data:", "#")), (name, value[:80])
    assert "default-src 'none'" in text
    assert not re.search(r"url\((?!#)", text)


def test_the_numbers_on_the_page_are_those_of_the_rows():
    text = build("word")
    for words in (
        "n = 2",
        "exactly 0",
        "holds",
        "5 transformer blocks",
        "minimal",
        "0.600",
        "cos analyze patching --model word",
    ):
        assert words in text, words


def test_the_colour_scale_is_symmetric_and_the_sigma_is_on_the_axis():
    table = pd.DataFrame([[0.1, -0.9], [0.2, 0.3]], columns=[0, 4])
    svg = figures.heat_maps([("a", table)], {0: 1.0, 4: 0.5}, "effect")
    assert svg.startswith("<svg") and svg == figures.heat_maps([("a", table)], {0: 1.0, 4: 0.5}, "effect")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium on this machine")
def test_it_opens_in_a_browser_from_disk(tmp_path):
    page = tmp_path / "report.html"
    page.write_text(build(HOSTILE))
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
        "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000",
    ]  # fmt: skip
    done = subprocess.run(["chromium", *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.stdout.count("<svg") >= 6 and "alert(1)" in done.stdout
    assert "script" not in parsed(done.stdout).tags
