"""What the ensemble gains over single runs, and its page."""

from __future__ import annotations

import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Finding, decide
from cos_interp.analyses.driver.statistics import by_item, mean_number, paired
from cos_interp.analyses.driver.store import RunStore
from cos_interp.reports.figures import bars


def findings(rows: pd.DataFrame) -> list[Finding]:
    by = {method: part.set_index("problem").solved.astype(float) for method, part in rows.groupby("method", sort=False)}
    out = []
    for method in [m for m in by if m.startswith("ensemble")]:
        single = by["mean of single runs"]
        gain = paired(by[method], single)
        out.append(Finding(
            "A training-free ensemble of seeds improves the score, 0.685 to 0.716 (6)", decide(gain.low, gain.high),
            f"{method} solves {mean_number(by[method])}, single runs {mean_number(single)}; the paired gain is",
            gain, "gain over a perfect verifier's pick at equal compute", paired(by[method], by["best of equal compute"]),
            "the interval of the paired gain over single runs lies above 0",
        ))  # fmt: skip
    return out


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows, config = result.rows, result.config
    question = (
        "Several noises of one problem explore different candidates. Does merging them inside the model, before the plan is "
        "chosen, give a better answer than a single run, and than spending the same compute on independent runs?"
    )
    judged = rows[rows.solved.notna()]
    seeds, steps = config.seeds, ", ".join(map(str, config.steps))
    notes = [f"{seeds} seeds, merged in steps {steps} ({config.combine}); afterwards only the first seed goes on."]
    sections = []
    if judged.empty:
        notes.append("These problems have no verifier: only how far the result moves is shown.")
    else:
        sections = [
            pages.Section("Accuracy", _bars(judged), "Bars: 95 % bootstrap over items. Dashed: single runs.", _table(judged))
        ]
    moved = rows[rows.distance.notna()]
    spread = [
        {"method": m, "|result - single run| / |single run|": str(by_item(p, "distance"))} for m, p in moved.groupby("method")
    ]
    sections.append(pages.Section("How far the result moves", table=pd.DataFrame(spread)))
    found = [] if judged.empty else findings(judged)
    return pages.build(result, "Training-free ensemble", question, "CoS section 6", found, sections, notes)


def _bars(rows: pd.DataFrame) -> str:
    made = []
    for method, part in rows.groupby("method", sort=False):
        number = by_item(part, "solved")
        made.append({"name": method, "mean": number.value, "low": number.low, "high": number.high})
    table = pd.DataFrame(made)
    return bars(table, "solved", float(table[table.name == "mean of single runs"]["mean"].iloc[0]))


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    """By method and task: solved, cost, and the paired difference to the single runs."""
    out = []
    for method, part in rows.groupby("method", sort=False):
        row = {"method": method, "compute, runs": float(part["compute"].iloc[0]), "all": str(by_item(part, "solved"))}
        base = rows[rows.method == "mean of single runs"].set_index("problem").solved.astype(float)
        row["gain over single runs"] = str(paired(part.set_index("problem").solved.astype(float), base))
        row |= {str(task): str(by_item(at, "solved")) for task, at in part.groupby("task", sort=False)}
        out.append(row)
    return pd.DataFrame(out)
