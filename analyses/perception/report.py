"""The perception-before-action analysis on a page. Knows rows, not models."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.facts import RunFacts
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.driver.statistics import curve
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.perception.measure import lags
from cos_interp.reports.figures import Curve, Panel, panels, step_ticks

QUESTION = (
    "Does the model first localise the objects and only later move them? Every step's clean estimate is read cell by cell "
    "(nearest sprite): overlap of the objects with the truth, and the share of the moving thing's displaced places that show it."
)
READ = (
    "Localised: IoU of all objects with the truth in the frames after the first. Still: of those that never move. Footprint: "
    "IoU of the cells that the moving thing visits, whenever it does. Motion: share of its displaced (frame, cell) places that "
    "show it; reversed: the same with the frames in reverse order."
)
LAGS = (
    "A reading is there from the first step with half of its final value (items whose final value is below 0.5 left out). Lag: "
    "step of motion minus step of the other reading. n: items with both; intervals: 95 %, bootstrap-t over items."
)
NAMES = {
    "localised": "localised", "still": "still objects", "moving_place": "footprint of the moving thing", "motion": "motion",
    "motion_shuffled": "motion, frames reversed",
}  # fmt: skip
LATENT = {"appearance": "what stays over time", "movement": "what changes over time"}
LATER = {"moving_place": "motion", "appearance": "movement"}
NAMED = {"moving_place": "the footprint", "appearance": "what stays"}


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows, found_lags = result.rows, lags(result.rows)
    sigmas = [*result.sigmas, 0.0]
    known = "localised" in rows
    found = lag_findings(result, found_lags) if known else [latent_finding(result, found_lags)]
    notes = [] if known else ["These problems have no verifier: only the verifier-free readings of the latents are given."]
    strips = [strip(store, unit, facts) for unit, facts in result.units_of(RunFacts).items() if facts.axes]
    sections = [
        *([pages.Section("Readings along the steps", reading_panels(rows, sigmas, NAMES), READ)] if known else []),
        pages.Section("The lag", "", LAGS, lag_table(found_lags)),
        pages.Section(
            "Without a verifier", reading_panels(rows, sigmas, LATENT), "Cosine of parts of x0hat with the final latent's."
        ),
        *([pages.Section("Clean estimates", caption="Rows: steps 0 to 5 and the final video.", clips=strips)] if strips else []),
    ]
    return pages.build(result, "Perception before action", QUESTION, "CoS section 4", found, sections, notes)


def lag_findings(result: AnalysisResult, lags: pd.DataFrame) -> list[Finding]:
    """One a task, never pooled: a lag of one task would make a verdict of four."""
    return [lag_finding(result, part) for _, part in lags.groupby("task", sort=False)]


def lag_finding(result: AnalysisResult, lags: pd.DataFrame) -> Finding:
    """How much later the moving thing is at the right time than at the right places, on one task."""
    own, where, when = (
        Mean(lags[name].to_numpy(float)).number() for name in ("lag_localised", "moving_place_step", "motion_step")
    )
    said = (
        f"the places that the thing visits are there at step {where}, its motion at step {when}; it comes later than its own "
        "footprint, in steps, by"
    )
    lag = Mean(lags.lag_moving_place.to_numpy(float))
    return result.judge(f"perception.{lags.task.iloc[0]}", lag, said, own, floor(lags, "moving_place"))


def floor(lags: pd.DataFrame, earlier: str) -> str | None:
    """Why a lag cannot be seen: in most items the earlier reading is there at the first step, before which nothing can be."""
    known = lags[lags[f"{earlier}_step"].notna() & lags[f"{LATER[earlier]}_step"].notna()]
    at_floor = int((known[f"{earlier}_step"] == 0).sum())
    if not len(known) or at_floor <= len(known) / 2:
        return None
    return f"{NAMED[earlier]} is there at step 0 already in {at_floor} of {len(known)} items, so that nothing can come earlier"


def latent_finding(result: AnalysisResult, lags: pd.DataFrame) -> Finding:
    start = Mean(lags.appearance_step.to_numpy(float)).number()
    said = "what changes over time reaches half of its final likeness later than what stays, in steps, by"
    return result.judge("perception.latent", Mean(lags.lag_appearance.to_numpy(float)), said, start, floor(lags, "appearance"))


def reading_panels(rows: pd.DataFrame, sigmas: list[float], names: dict[str, str]) -> str:
    made = []
    groups = [("all tasks", rows), *rows.groupby("task", sort=False)] if rows.task.nunique() > 1 else [("", rows)]
    ticks = step_ticks(sigmas, 2)
    for title, part in groups:
        curves = [
            Curve(text, curve(part.dropna(subset=[name]), name), "--" if name == "motion_shuffled" else "-")
            for name, text in names.items()
            if part[name].notna().any()
        ]
        made.append(Panel(str(title), curves, "step", "step, sigma (last: final video)", "reading", ticks, (-0.05, 1.05)))
    return panels(made)


def lag_table(lags: pd.DataFrame) -> pd.DataFrame:
    """First steps and lags with intervals: a row a reading, a column a task."""
    steps = {f"{name}_step": f"step: {text}" for name, text in {**NAMES, **LATENT}.items() if name != "motion_shuffled"}
    behind = {f"lag_{name}": f"lag behind: {text}" for name, text in NAMES.items()}
    behind["lag_appearance"] = "lag of what changes behind what stays"
    groups = [("all", lags), *lags.groupby("task", sort=False)] if lags.task.nunique() > 1 else [("all", lags)]
    return pd.DataFrame([
        {"reading": text, **{str(task): short(Mean(part[column].to_numpy(float)).number()) for task, part in groups}}
        for column, text in {**steps, **behind}.items() if column in lags
    ])  # fmt: skip


def short(number: Number) -> str:
    return "–" if number.n == 0 else str(number)


def strip(store: RunStore, unit: str, facts: RunFacts) -> pages.Clip:
    frames = store.tensors(unit)["frames"].numpy()
    steps = [*range(min(6, len(frames) - 1)), len(frames) - 1]
    return pages.Clip(unit, f"“{facts.prompt}”, steps {', '.join(map(str, steps))}", pages.strip(np.asarray(frames[steps])))
