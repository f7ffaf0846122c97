"""A patching page of made-up rows, with text of one's choice everywhere where a user or a model could put some."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.facts import Facts, LeftOut
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.driver.kept import listed
from cos_interp.analyses.driver.pages import Overlay, Reel, Shown
from cos_interp.analyses.driver.thumbnails import looked_into, thumbnails
from cos_interp.analyses.patching import PairFacts, PatchingConfig, SideFacts
from cos_interp.analyses.patching.report import page
from cos_interp.reports.drawing import REELS
from cos_interp.reports.figures import scatters
from cos_interp.tasks import grid

SITE = "hook_resid_post"
HOSTILE = '"><script>alert(1)</script></script><img src=x onerror=alert(2)>{{7*7}}</svg>&amp;\u2028\u202e<svg onload=alert(3)>'


def made_up_result(text: str) -> AnalysisResult:
    """Rows with known values."""
    rows = [
        {
            "pair": f"{kind}-{i:03d}", "pair_kind": kind, "span": "single",
            "donor": donor, "site": SITE, "step": k, "layer": layer,
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


def made_up_reels(text: str) -> list[Reel]:
    """The clips of a pair, whose patch is at step 1 and layer 1, and a scrubber of three steps. Frame ``f`` of row ``r`` is of
    one grey, ``40 r + 10 f``."""
    grey = (40 * np.arange(3)[:, None] + 10 * np.arange(4)).astype(np.uint8)
    clips = np.broadcast_to(grey[:, :, None, None, None], (3, 4, 16, 16, 3)).copy()
    told = {"at": text, "effect": 0.5, "reads": text}
    at = {"tokens": "all", "step": 1, "layer": 1, "site": SITE}
    pair = [Shown("receives", {"prompt": text}), Shown("gives", {"prompt": text}), Shown("patched", told, at)]
    steps = [Shown(f"step {k}", told, {"step": k}, bars={text: 0.5}) for k in range(3)]
    maps = np.zeros((2, 2, 2, 2, 2))  # look, layer, token frame, row, col
    maps[1, :, 1, 0, 0], maps[0, 1, 1, 1, 1] = (0.25, 0.5), 0.75
    over = Overlay(maps, {"look": [text, "other"], "layer": ["0", "1"]}, [0, 0, 1, 1], [(1, 0, 0), (1, 1, 1)])
    return [
        Reel("prompt-000", text, clips, pair), Reel("scrubber", text, clips, steps, along="step", mark=1),
        Reel("laid over", text, clips[:1], [Shown("video")], over=over),
    ]  # fmt: skip


def build(text: str) -> str:
    """The page of a made-up result."""
    return page(made_up_result(text), made_up_reels(text)).html


cached = cache(build)


def made_up_points(text: str) -> str:
    """A page with two maps of six points: three steps of two runs, of which the first has clips, of one grey each: 50 and 100 at
    steps 0 and 1, 200 at the end. In the first map a run is a row, in the second a column."""
    runs, steps = np.repeat([0, 1], 3), np.tile([0, 1, 2], 2)
    about = pd.DataFrame({"run": [f"{text} {run}" for run in runs], "step": steps, "told": text})
    clips = [(pages.Shown(text, {}, {"run": f"{text} 0", "step": step}), grey) for step, grey in ((0, 50), (1, 100))]
    clips.append((pages.Shown("end", {"reads": text}, {"run": f"{text} 0"}), 200))
    reels = thumbnails([(shown, np.full((2, 16, 16, 3), grey, np.uint8)) for shown, grey in clips])
    seen = looked_into(reels, "run")
    about[REELS] = [seen.get(run, ()) for run in about.run]
    tables = [("rows", pd.DataFrame({"x": steps, "y": runs})), ("columns", pd.DataFrame({"x": runs, "y": steps}))]
    figure = scatters(tables, "run", text, about, ("run", "step"), joined=True)
    sections = [pages.Section(text, figure, text), pages.Section("Small clips", reels=reels)]
    return pages.build(made_up_result(text), text, text, text, [], sections).html


def made_up_items(text: str) -> str:
    """A page of five items with clips of grey ``40 * item``, and a sixth without, in a table: of two tasks, half are right."""
    told = pd.DataFrame(
        {"reads": ["solved", f"wrong ({text})"] * 3}, index=pd.Index([f"{text} {n}" for n in range(6)], name="problem")
    )
    rows = pd.DataFrame({"problem": told.index, "task": ["maze"] * 4 + ["place"] * 2, "difficulty": [3, 3, 4, 4, 5, 5]})
    clips = [np.full((1, 2, 16, 16, 3), 40 * n, np.uint8) for n in range(5)]
    reels = [Reel(f"{text} {n}", text, clip, [Shown("video")]) for n, clip in enumerate(clips)]
    section = pages.Section("Videos", reels=reels, table=listed(told, rows, reels))
    return pages.build(made_up_result(text), text, text, text, [], [section]).html


def made_up_reading(text: str) -> str:
    """A page with one maze's video, of two frames: in the first the agent stands left above; in the second a trail is there, the
    agent right of it, and the cell below is half of a trail and half of a wall."""
    cells = np.zeros((2, grid.ROWS, grid.COLS), int)
    cells[0, 0, 0], cells[1, 0, :2], cells[:, 4] = grid.AGENT, (grid.TRAIL, grid.AGENT), grid.WALL
    clip, wall = grid.render(cells), grid.render(np.full_like(cells, grid.WALL))
    half = clip[:, :16, :16] // 2 + wall[:, :16, :16] // 2
    clip[1, 16:32, :16] = half[1]
    section = pages.Section("Videos", reels=[Reel(text, text, clip[None], [Shown(text)])])
    return pages.build(made_up_result("word"), text, text, text, [], [section]).html


def made_up_counterexamples(text: str) -> str:
    """A page of twelve items, three of which lie below the bound of 0.25; the furthest of them, item 0, has clips."""
    values = {f"{text} {n}": -0.5 + 0.3 * n if n < 3 else 1.0 + 0.1 * n for n in range(12)}
    found = Finding(
        text, "reproduced", text, Number(0.9, 0.5, 1.2, 12), text, Number(0.1, 0.0, 0.2, 12), text, smallest=0.25,
        items=tuple(values.items()),
    )  # fmt: skip
    table = pd.DataFrame({"item": [pages.Link(name, name) for name in values], "number": list(values.values())})
    reels = [Reel(f"{text} {n}", text, np.zeros((2, 4, 16, 16, 3), np.uint8), [Shown("a"), Shown("b")]) for n in (5, 0)]
    sections = [pages.Section("Videos", reels=reels, table=table)]
    return pages.build(made_up_result(text), text, text, text, [found], sections).html
