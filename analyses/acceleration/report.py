"""What may be saved, on a page: answers kept against calls saved, the map, the schedule."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from cos_interp.analyses.acceleration import AccelerationConfig, ScheduleFacts, TestedFacts, judged, places
from cos_interp.analyses.acceleration.exported import as_json
from cos_interp.analyses.acceleration.findings import deciding, findings
from cos_interp.analyses.acceleration.measure import ASKED, SHOWN
from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.kept import Kept, kept_clips, told_right, videos
from cos_interp.analyses.driver.statistics import by_item, points
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.choice import tested
from cos_interp.reports.figures import Curve, Panel, matrix_maps, panels

QUESTION = (
    "Which calls of which blocks may be saved without changing verified answers? On every second item each layer is saved in "
    "each span of steps: its attention and MLP give what they gave at the step before (cache), or nothing (skip), or the block "
    "reads and adds in few bits (round). The "
    "schedule saves what was missed least; on the other items it stands against whole steps, evenly spread, and random calls of "
    "equal cost."
)
SOURCE = "this project"
KEPT = "answers kept"
MOVED = "distance of the final latent"
SAID = {MOVED: "distance", "block calls saved": "calls"}
VIDEOS = (
    "Items of the test: the run as it is, and what is left of it when the judged share of its block calls is saved. Table: all "
    "of them, whether the video is right, and whether a solved item's answer is there again with the chosen schedule; those with "
    "a link have their videos here."
)


def report(result: AnalysisResult[AccelerationConfig], store: RunStore) -> Report:
    rows, config = result.rows, result.config
    facts = result.first(ScheduleFacts)
    calls = facts.chosen[judged(facts.chosen)]
    share = len(calls) / (facts.steps * facts.layers * len(facts.branches))
    schedule = as_json(calls, config.by, facts.steps, facts.branches, share, facts.modules, facts.unfit, facts.experts)
    notes = [f"Schedule (media/schedule.json): {json.dumps(schedule)}"]
    asked = answers(rows)
    notes += [f"Asked: {', '.join(f'{name} {value}' for name, value in row.items())}" for row in asked.to_dict("records")]
    sections = [
        *_asked(asked),
        _tests(rows),
        *(_map(rows, method, value) for method in config.methods for value in _values(rows)),
        _cells(rows),
    ]
    sections.append(_videos(rows, [tested(one) for one in kept_clips(result, store, TestedFacts)]))
    made = pages.build(result, "Acceleration", QUESTION, SOURCE, findings(result), sections, notes, ("cause",))
    media = {**made.media, "schedule.json": (json.dumps(schedule, indent=1) + "\n").encode()}
    return replace(made, data={**made.data, "schedule": schedule}, media=media)


def _values(rows: pd.DataFrame) -> dict[str, str]:
    """What is shown, and what it is called."""
    known = {"kept": KEPT, "distance": MOVED}
    return {value: name for value, name in known.items() if rows[value].notna().any()}


def _curve(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """By the share of calls that is saved; draws of random schedules are averaged within an item."""
    numbers = {float(saving): by_item(part, value) for saving, part in rows[rows[value].notna()].groupby("saving")}
    return points(numbers, "saving")


def _tests(rows: pd.DataFrame) -> pages.Section:
    tests = rows[rows.stage == "test"].copy()
    tests["schedule"] = tests.schedule.str.split().str[0]
    made = [
        Panel(name, [Curve(str(s), _curve(part, value)) for s, part in tests.groupby("schedule", sort=False)],
              "saving", "share of block calls saved", name, bounds=(-0.03, 1.03) if value == "kept" else None)
        for value, name in _values(tests).items()
    ]  # fmt: skip
    table = pd.DataFrame([
        {"share saved": saving, "schedule": name, "calls saved": int(part.calls.iloc[0])}
        | {shown: str(by_item(part[part[value].notna()], value)) for value, shown in _values(tests).items()}
        for (saving, name), part in tests.groupby(["saving", "schedule"], sort=False)
    ])  # fmt: skip
    caption = (
        "Items that did not choose the schedule; answers are those of items that the run itself solves. Bands: 95 % intervals."
    )
    return pages.Section("What is kept at equal cost", panels(made), caption, table, key=True)


def _map(rows: pd.DataFrame, method: str, value: str) -> pages.Section:
    mapped = rows[(rows.stage == "map") & (rows.method == method)]
    name = _values(rows)[value]
    maps = []
    for branch, part in mapped.groupby("branch", sort=False):
        table = part.astype({value: float}).pivot_table(value, "layer", "band", sort=False, dropna=False).sort_index()
        maps.append((str(branch), table[list(dict.fromkeys(part.sort_values("first").band))].rename(index=int)))
    figure = matrix_maps(maps, "steps", "layer", name, (0, 1) if value == "kept" else None)
    return pages.Section(
        f"One layer at a time: {method}, {name}", figure, "Mean over the items that choose.", of=[mapped.problem.nunique()]
    )


def answers(rows: pd.DataFrame) -> pd.DataFrame:
    """What --asked is answered, a row for each place and method: "may I skip layer 3 at steps 10 to 20?"."""
    out = []
    for (asked, method), part in rows[rows.stage == ASKED].groupby(["asked", "method"], sort=False) if "asked" in rows else ():
        layers, steps = places(asked)
        solved = part[part.kept.notna()]
        row = {"layers": ", ".join(map(str, layers)), "steps": f"{steps[0]} to {steps[-1]}", "method": method}
        row |= {"calls saved": int(part.calls.iloc[0])} | ({KEPT: str(by_item(solved, "kept"))} if len(solved) else {})
        out.append(row | {MOVED: str(_number(part.distance))})
    return pd.DataFrame(out)


def _asked(table: pd.DataFrame) -> list[pages.Section]:
    caption = (
        "All calls of these layers at these steps saved together, in every branch; answers of the items that the run itself "
        "solves, none of which chose anything here, with 95 % intervals. The first step of an expert is computed, and of cache "
        "one of so many steps (--interval)."
    )
    return [pages.Section("What was asked about", None, caption, table, key=True)] if len(table) else []


def _cells(rows: pd.DataFrame) -> pages.Section:
    """Layer by layer in the spans of the map."""
    out = []
    for (method, layer, band, branch), part in rows[rows.stage == "map"].groupby(
        ["method", "layer", "band", "branch"], sort=False
    ):
        row = {"method": method, "layer": int(layer), "steps": band, "branch": branch, "calls saved": int(part.calls.iloc[0])}
        solved = part[part.kept.notna()]
        row |= {KEPT: str(by_item(solved, "kept"))} if len(solved) else {}
        out.append(row | {MOVED: str(_number(part.distance))})
    caption = "May I save this layer at these steps? Answers of the solved items that choose, with 95 % intervals."
    return pages.Section("Cell by cell", None, caption, pd.DataFrame(out))


def _videos(rows: pd.DataFrame, held: Sequence[Kept]) -> pages.Section:
    """The videos of tested items by each schedule, and what became of every one."""
    reels, tests = [one.reel(say=SAID) for one in held], deciding(rows)
    chosen = tests[tests.schedule == "chosen"].set_index("problem")
    beside = pd.DataFrame({"same answer": chosen.kept.map({1: "yes", 0: "no"}), "distance, chosen": chosen.distance})
    table = videos(told_right(tests), lambda row: SHOWN.get(row["schedule"]), reels, beside=beside.dropna(axis=1, how="all"))
    return pages.Section("Videos", caption=VIDEOS, reels=reels, table=table)


def _number(values: pd.Series) -> Number:
    return Mean(values.astype(float), normal=True).number()
