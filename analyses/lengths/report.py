"""Accuracy by length, on a page."""

from __future__ import annotations

import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean, Share
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.kept import listed, reads
from cos_interp.analyses.driver.statistics import points
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.lengths import BEYOND, TRAINED, WITHIN, LengthsConfig, PairFacts
from cos_interp.analyses.lengths.findings import findings
from cos_interp.reports.figures import Curve, Panel, panels

QUESTION = (
    "Does what a model solves hold for items longer than any that it was trained on? Mazes with longer routes and balls that "
    "roll on, in videos of more frames, each beside a shorter item of the same scene from the same noise."
)
SOURCE = "the paper's future work; this project"
VIDEOS = "The first scene of each task, as generated. Table: what is read in the videos of every scene."
SAID = {
    TRAINED: "short item, trained number of frames", WITHIN: "short item, longer video", BEYOND: "long item, longer video"
}  # fmt: skip


def report(result: AnalysisResult[LengthsConfig], store: RunStore) -> Report:
    rows = result.rows
    sections = [_curves(rows), _table(rows), *_videos(result, store)]
    return pages.build(result, "Longer than trained", QUESTION, SOURCE, findings(result), sections, [])


def _curves(rows: pd.DataFrame) -> pages.Section:
    """Share solved by number of moves, a panel a task."""
    made = []
    for task, part in rows.groupby("task", sort=False):
        curves = []
        for video, name in SAID.items():
            some = part[part.video == video]
            found = {int(length): Share(at.solved.astype(float)).number() for length, at in some.groupby("length")}
            curves.append(Curve(name, points(found, "length")))
        made.append(Panel(str(task), curves, "length", "moves", "share solved", bounds=(-0.03, 1.03)))
    caption = "Moves: cells of the route, or of the ball's way. Bands: exact 95 % intervals over scenes."
    return pages.Section("Accuracy by length", panels(made), caption, key=True)


def _table(rows: pd.DataFrame) -> pages.Section:
    out = []
    for (task, video), part in rows.groupby(["task", "video"], sort=False):
        wrong = part[part.solved == 0]
        reasons = wrong.error.where(wrong.error != "", wrong.status).value_counts()
        out.append({
            "task": task, "video": SAID[str(video)], "frames": int(part.frames.iloc[0]),
            "moves": f"{part.length.min()} to {part.length.max()}", "solved": str(Share(part.solved.astype(float)).number()),
            "frames right, from the first on": str(Mean(part.right.astype(float), normal=True).number()),
            "else": ", ".join(f"{why} {n}" for why, n in reasons.items()) or "-",
        })  # fmt: skip
    return pages.Section("Side by side", None, "Exact 95 % intervals over scenes.", pd.DataFrame(out))


def _videos(result: AnalysisResult[LengthsConfig], store: RunStore) -> list[pages.Section]:
    """The long item's video of some scenes, and what is read in all three of every one."""
    reels = [
        pages.Reel(unit, f"“{facts.prompt}”, {facts.length} moves", store.tensors(unit)[BEYOND].numpy()[None],
                   [pages.Shown(SAID[BEYOND])])
        for unit, facts in result.units_of(PairFacts).items() if BEYOND in facts.axes
    ]  # fmt: skip
    rows = result.rows
    said = [verdict[1] if (verdict := reads(row)) else None for row in rows.to_dict("records")]
    told = rows.assign(said=said, video=rows.video.map(SAID)).pivot(index="problem", columns="video", values="said")
    table = listed(told[list(SAID.values())].reindex(rows.problem.unique()).rename_axis("problem"), rows, reels)
    return [pages.Section("Long items", caption=VIDEOS, reels=reels, table=table)]
