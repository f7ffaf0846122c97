"""The perception-before-action analysis on a page. Knows rows, not models."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import DIFFERENCE, Mean
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.facts import RunFacts
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.driver.rules import rules
from cos_interp.analyses.driver.statistics import by_item, curve, mean_number
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.perception.measure import lags
from cos_interp.reports.drawing import Drawing
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
    "step of motion minus step of the other reading."
)
NAMES = {
    "localised": "localised", "still": "still objects", "moving_place": "footprint of the moving thing", "motion": "motion",
    "motion_shuffled": "motion, frames reversed",
}  # fmt: skip
LATENT = {"appearance": "what stays over time", "movement": "what changes over time"}


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows, found_lags = result.rows, lags(result.rows)
    sigmas = [*result.sigmas, 0.0]
    known = "localised" in rows
    steps = len(result.sigmas)
    found = lag_findings(result, found_lags, steps) if known else []
    found.append(latent_finding(result, found_lags, steps))
    notes = [] if known else ["These problems have no verifier: only the verifier-free readings of the latents are given."]
    strips = [strip(store, unit, facts) for unit, facts in result.units_of(RunFacts).items() if facts.axes]
    sections = [
        *([pages.Section("Readings along the steps", reading_panels(rows, sigmas, NAMES), READ)] if known else []),
        pages.Section("The lag", None, LAGS, lag_table(found_lags)),
        pages.Section(
            "Without a verifier", reading_panels(rows, sigmas, LATENT), "Cosine of parts of x0hat with the final latent's."
        ),
        *([pages.Section("Clean estimates", caption="Rows: steps 0 to 5 and the final video.", clips=strips)] if strips else []),
    ]
    return pages.build(result, "Perception before action", QUESTION, "CoS section 4", found, sections, notes, ("correlation",))


def lag_findings(result: AnalysisResult, lags: pd.DataFrame, steps: int) -> list[Finding]:
    """One finding a task, never pooled: how much later the motion is there than the moving thing's own footprint."""
    return [_lag(result, str(task), part, steps) for task, part in lags.groupby("task", sort=False)]


def _lag(result: AnalysisResult, task: str, lags: pd.DataFrame, steps: int) -> Finding:
    objects = mean_number(lags.lag_localised / steps, DIFFERENCE)
    at = {name: mean_number(lags[f"{name}_step"], (0, steps)) for name in ("moving_place", "motion")}
    unfit = _floor(lags, "moving_place_step", "motion_step")
    statement = (
        f"{task}: the moving thing's footprint is there at step {at['moving_place']}, its motion at step {at['motion']}; the "
        f"motion comes later by a share of the run (behind all objects: {objects}) of"
    )
    still = mean_number(lags.lag_still / steps, DIFFERENCE) if "lag_still" in lags else Number(float("nan"))
    key = f"perception.{task}" if f"perception.{task}" in rules() else "perception.other"  # a task of the user's own
    return result.judge(key, Mean(lags.set_index("problem").lag_moving_place / steps), statement, still, unfit)


def latent_finding(result: AnalysisResult, lags: pd.DataFrame, steps: int) -> Finding:
    return result.judge(
        "perception.latents", Mean(lags.set_index("problem").lag_appearance / steps),
        "what changes over time reaches half of its final likeness later than what stays, by a share of the run of",
        mean_number(lags.appearance_step, (0, steps)), _floor(lags, "appearance_step", "movement_step"),
    )  # fmt: skip


def _floor(lags: pd.DataFrame, first: str, second: str) -> str | None:
    """Why nothing can be said where most items have both readings from the first step on; None where it can."""
    both = lags.dropna(subset=[first, second])
    count = int(((both[first] == 0) & (both[second] == 0)).sum())
    return (
        f"both are there at step 0 in {count} of {len(both)} items: nothing can come earlier" if 2 * count > len(both) else None
    )


def reading_panels(rows: pd.DataFrame, sigmas: list[float], names: dict[str, str]) -> Drawing:
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
        {"reading": text, **{str(task): short(by_item(part, column)) for task, part in groups}}
        for column, text in {**steps, **behind}.items() if column in lags
    ])  # fmt: skip


def short(number: Number) -> str:
    return "–" if number.n == 0 else str(number)


def strip(store: RunStore, unit: str, facts: RunFacts) -> pages.Clip:
    frames = store.tensors(unit)["frames"].numpy()
    steps = [*range(min(6, len(frames) - 1)), len(frames) - 1]
    return pages.Clip(unit, f"“{facts.prompt}”, steps {', '.join(map(str, steps))}", pages.strip(np.asarray(frames[steps])))
