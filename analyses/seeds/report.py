"""Accuracy against compute: seeds that are looked at early, and whole runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.kept import kept_clips, listed, right
from cos_interp.analyses.driver.statistics import points
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.screening import VOTES, best_of, majority_of
from cos_interp.analyses.seeds import SeedsConfig, SeedsFacts
from cos_interp.analyses.seeds.findings import KINDS, PICKER, PLACEBO, VOTE, control_of, findings, looks, runs_of, table
from cos_interp.reports.figures import Curve, Panel, panels

QUESTION = (
    "Can bad seeds be stopped early? Several seeds of a problem are looked at after a step, and only the most promising one is "
    "finished. The looks: the scorer on the clean estimate, the weights of the right answers in it, and a linear read-out of it "
    "that other items taught which seed of an item ends solved. All is held against whole runs for the same block calls."
)
SOURCE = "2603.30043; this project"


def report(result: AnalysisResult[SeedsConfig], store: RunStore) -> Report:
    seen, steps = looks(result.rows), len(result.sigmas)
    tables = {kind: found for kind in (*KINDS, *PLACEBO) if not (found := table(seen, steps, kind)).empty}
    notes = [
        f"{result.config.noises} seeds a problem, {seen.problem.nunique()} problems. Looks cost a decoding each, no block calls."
    ]
    if without := result.rows.problem.nunique() - seen.problem.nunique():
        notes.append(f"{without} more left out: there is no verdict on one of their seeds.")
    sections = [_curves(seen, tables), _steps(tables), _videos(result, seen, store)]
    return pages.build(result, "Seeds", QUESTION, SOURCE, findings(result), sections, notes, ("correlation",))


def _videos(result: AnalysisResult[SeedsConfig], seen: pd.DataFrame, store: RunStore) -> pages.Section:
    """The videos of all seeds of a problem; how many are right, of every problem."""
    reels = [right(one).reel() for one in kept_clips(result, store, SeedsFacts)]
    solved = (
        seen.drop_duplicates(["problem", "noise"]).astype({"solved": int}).pivot_table("solved", "problem", "noise", sort=False)
    )
    told = listed(pd.DataFrame({"right": solved.sum(axis=1).astype(int), "of": solved.shape[1]}), seen, reels)
    caption = "All seeds of an item, run to the end. Table: how many are right; items with a link have their videos here."
    return pages.Section("Seed by seed", caption=caption, reels=reels, table=told)


def _number(values: pd.Series) -> Number:
    return Mean(values.astype(float), bounds=(-1, 1)).number()


def _curve(numbers: Mapping[float, Number]) -> pd.DataFrame:
    return points(numbers, "compute")


def _whole(seen: pd.DataFrame, value: Callable[[pd.DataFrame, int], float]) -> pd.DataFrame:
    """A value of so many whole runs, from 1 to all."""
    runs = seen.drop_duplicates(["problem", "noise"])
    groups = [part for _, part in runs.groupby("problem")]
    counts = range(1, int(seen.noise.nunique()) + 1)
    return _curve({float(m): _number(pd.Series([value(part, m) for part in groups])) for m in counts})


def _curves(seen: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> pages.Section:
    named = KINDS | PLACEBO
    curves = [
        Curve(named[kind], _curve({float(cost): _number(part.screened) for cost, part in found.groupby("compute")}),
              ":" if kind in PLACEBO else "-")
        for kind, found in tables.items()
    ]  # fmt: skip
    curves.append(
        Curve("whole runs, perfect picker", _whole(seen, lambda part, m: best_of(part.solved.astype(bool).tolist(), m)), "--")
    )
    curves.append(Curve("whole runs, majority", _whole(seen, lambda part, m: majority_of(runs_of(part), m)), "--"))
    panel = Panel("accuracy against compute", curves, "compute", "whole runs' worth of block calls", "share solved")
    caption = (
        "Along a solid line the look comes later, and all seeds cost more. Dashed: whole runs, 1 to all, of which a picker that "
        "never errs takes one, or the most frequent answer counts. Bands: 95 % intervals over items. "
        f"{VOTES}"
    )
    return pages.Section("Accuracy against compute", panels([panel], columns=1), caption, key=True)


def _steps(tables: Mapping[str, pd.DataFrame]) -> pages.Section:
    out = []
    for kind, found in tables.items():
        for step, part in found.groupby("step"):
            name = control_of(part, kind)
            out.append({
                "look": (KINDS | PLACEBO)[kind], "step": int(step), "sigma": float(part.sigma.iloc[0]),
                "compute, runs": float(part.compute.iloc[0]), "solved": str(_number(part.screened)),
                "single run": str(_number(part.single)), VOTE: str(_number(part[VOTE])), PICKER: str(_number(part[PICKER])),
                "best of all": str(_number(part["best of all"])), "gain over": name,
                "gain": str(_number(part.screened - part[name])),
            })  # fmt: skip
    return pages.Section("Step by step", None, "Gains are paired by item.", pd.DataFrame(out))
