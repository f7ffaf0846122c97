"""Averaged weights on a page: what is solved, how far videos and weights are apart, videos."""

from __future__ import annotations

import pandas as pd
import torch

from cos_interp.analyses.averaging import AVERAGE, LAST, WEIGHTS, AveragingConfig, AveragingFacts
from cos_interp.analyses.averaging.findings import by_variant, findings, same
from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean, Share
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.kept import videos
from cos_interp.analyses.driver.statistics import points
from cos_interp.analyses.driver.store import RunStore
from cos_interp.reports.figures import Curve, Panel, panels

QUESTION = (
    "Does the mean of several checkpoints' weights solve more than the last checkpoint? Each item is generated from one noise by "
    "the last checkpoint, by the average, and by each other checkpoint alone."
)
SOURCE = "the paper's future work; weight averaging (1803.05407, 2203.05482)"


def report(result: AnalysisResult[AveragingConfig], store: RunStore) -> Report:
    rows, config = result.rows, result.config
    names = {LAST: config.model, AVERAGE: "the mean of all", **dict(zip(config.variants[2:], config.checkpoints, strict=True))}
    notes = [f"{variant}: {name}" for variant, name in names.items()]
    if same(rows):
        notes.append("The average makes the same videos as the last checkpoint, bit for bit: the weights are the same.")
    sections = [*_solved(rows), _table(rows, names), *_videos(result, store)]
    return pages.build(result, "Averaged checkpoints", QUESTION, SOURCE, findings(result), sections, notes, ("cause",))


def _solved(rows: pd.DataFrame) -> list[pages.Section]:
    """Share solved by task, a line a variant."""
    judged = rows[(rows.kind == "run") & rows.solved.notna()]
    if judged.empty:
        return []
    tasks = sorted(judged.task.unique())
    curves = []
    for variant, part in judged.groupby("variant", sort=False):
        shares = [Share(part[part.task == task].solved.astype(float)).number() for task in tasks]
        curves.append(Curve(str(variant), points(dict(enumerate(shares)), "task")))
    ticks = {float(place): task for place, task in enumerate(tasks)}
    panel = Panel("share solved", curves, "task", "task", "share solved", ticks, (-0.03, 1.03))
    return [pages.Section("What is solved", panels([panel], columns=1), "Bands: exact 95 % intervals over items.", key=True)]


def _table(rows: pd.DataFrame, names: dict[str, str]) -> pages.Section:
    deltas = rows[rows.kind == WEIGHTS].set_index("variant").delta if (rows.kind == WEIGHTS).any() else pd.Series(dtype=float)
    solved, moved = (by_variant(rows, value) for value in ("solved", "moved"))
    out = []
    for variant, name in names.items():
        row = {"variant": variant, "weights of": name, "weights: |difference| / |last|": float(deltas.get(variant, 0.0))}
        row["final latent: distance from the last's"] = str(Mean(moved[variant], normal=True).number())
        out.append(row | ({"solved": str(Share(solved[variant]).number())} if len(solved) else {}))
    return pages.Section("Side by side", None, "95 % intervals over items.", pd.DataFrame(out))


def _videos(result: AnalysisResult[AveragingConfig], store: RunStore) -> list[pages.Section]:
    """The first item of each task, by every variant."""
    shown: dict[str, dict[str, torch.Tensor]] = {}
    prompts: dict[str, str] = {}
    for unit, facts in result.units_of(AveragingFacts).items():
        if "video" in facts.axes:
            problem = unit.removeprefix(f"{facts.variant.replace(' ', '-')}-")
            prompts[problem] = facts.prompt
            shown.setdefault(problem, {})[facts.variant] = store.tensors(unit)["video"]
    reels = [
        pages.Reel(problem, f"“{prompts[problem]}”", torch.stack(list(held.values())).numpy(), [pages.Shown(v) for v in held])
        for problem, held in shown.items()
    ]
    runs = result.rows[result.rows.kind == "run"]
    told = videos(runs, lambda row: row["variant"], reels)
    caption = "From the same noise. Table: what is read in the videos of every item; those with a link have theirs here."
    return [pages.Section("Videos", caption=caption, reels=reels, table=told)] if reels else []
