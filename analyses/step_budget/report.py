"""Where the steps should lie, on a page: the search, the test, the levels."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.kept import kept_clips, told_right, videos
from cos_interp.analyses.driver.statistics import by_item, points
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.choice import tested
from cos_interp.analyses.step_budget import ScheduleFacts, StepBudgetConfig, WayFacts
from cos_interp.analyses.step_budget.allocations import OWN
from cos_interp.analyses.step_budget.exported import as_json
from cos_interp.analyses.step_budget.findings import findings
from cos_interp.analyses.step_budget.measure import SHOWN
from cos_interp.reports.figures import Curve, Panel, bars, panels

QUESTION = (
    "At which noise levels does a fixed number of steps solve most? On every second item steps are laid closer in some parts of "
    "the way from noise to video; on the other items the best of these allocations stands against the scheduler's own levels and "
    "random ones. All take the same calls of the model. Distance: of the final latent from that of a run of many more steps."
)
SOURCE = "the paper's future work; this project"
VIDEOS = (
    "The same noise in as many steps, at other noise levels. Table: every item that did not choose; those with a link have their "
    "videos here."
)
VALUES = {"solved": "share solved", "distance": "distance from a fine run"}
KINDS = {"solved": "exact", "distance": "bootstrap-t"}


def report(result: AnalysisResult[StepBudgetConfig], store: RunStore) -> Report:
    rows, facts = result.rows, result.first(ScheduleFacts)
    schedule = as_json(facts)
    notes = [f"The allocation (media/schedule.json): {json.dumps(schedule)}"]
    if facts.positions is None:
        notes.append("On the items that choose nothing is better than the scheduler's own levels.")
    sections = [_table(rows, "test"), _levels(facts), _table(rows, "search"), *_videos(result, store)]
    made = pages.build(result, "Step budget", QUESTION, SOURCE, findings(result), sections, notes, ("cause",))
    media = {**made.media, "schedule.json": (json.dumps(schedule, indent=1) + "\n").encode()}
    return replace(made, data={**made.data, "schedule": schedule}, media=media)


def _levels(facts: ScheduleFacts) -> pages.Section:
    drawn = {"scheduler's own": facts.own, f"chosen ({facts.name})": facts.levels}
    curve = lambda sigmas: pd.DataFrame([
        {"step": step, "mean": sigma} for step, sigma in enumerate([*sigmas, 0.0])
    ])  # fmt: skip
    panel = Panel("noise level", [Curve(name, curve(sigmas)) for name, sigmas in drawn.items()], "step", "step", "sigma")
    return pages.Section("Where the steps lie", panels([panel], columns=1), "Before each step, and after the last one.")


def _table(rows: pd.DataFrame, stage: str) -> pages.Section:
    part = rows[rows.stage == stage]
    shown = {value: name for value, name in VALUES.items() if part[value].notna().any()}
    called = lambda name: "scheduler's own" if name == OWN else str(name)
    table = pd.DataFrame([
        {"allocation": called(name), "calls": int(some.calls.iloc[0])}
        | {title: str(_number(some, value)) for value, title in shown.items()}
        for name, some in part.groupby("allocation", sort=False)
    ])  # fmt: skip
    value = next(iter(shown))  # what decides, where anybody judges
    numbers = {called(name): _number(some, value) for name, some in part.groupby("allocation", sort=False)}
    caption = {
        "test": "Items that did not choose.",
        "search": "Items that choose. Even: steps evenly along the way; dense: closer in these parts of it, from noise on.",
    }[stage]
    caption += f" {part.problem.nunique()} items; 95 % intervals over them, {KINDS[value]}."
    title = "On other items" if stage == "test" else "The search"
    return pages.Section(
        title, bars(points(numbers, "name"), shown[value], numbers[called(OWN)].value), caption, table, key=stage == "test"
    )


def _videos(result: AnalysisResult[StepBudgetConfig], store: RunStore) -> list[pages.Section]:
    """Items' videos by the scheduler's own levels, the chosen and random ones, and what became of every tested item."""
    reels = [tested(one).reel(say={VALUES["distance"]: "distance"}) for one in kept_clips(result, store, WayFacts)]
    tests = result.rows[result.rows.stage == "test"]
    named = tests.assign(way=tests.allocation.map(SHOWN)).dropna(subset=["way"])
    beside = named.pivot_table("distance", "problem", "way", sort=False).add_prefix("distance, ")
    table = videos(told_right(tests), lambda row: SHOWN.get(row["allocation"]), reels, beside=beside)
    return [pages.Section("Videos", caption=VIDEOS, reels=reels, table=table)] if len(tests) else []


def _number(rows: pd.DataFrame, value: str) -> Number:
    known = rows[rows[value].notna()]
    return by_item(known, value) if value == "solved" else Mean(known[value].astype(float), normal=True).number()
