"""What was corrected along the steps, and the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Finding, Number, decide
from cos_interp.analyses.driver.statistics import bootstrap, by_item, curve, mean_number, paired
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.self_correction import CorrectionFacts
from cos_interp.analyses.self_correction.measure import EXAMPLES
from cos_interp.reports.figures import Curve, Panel, panels, step_ticks


def flips(status: list[str]) -> tuple[int, int]:
    """(wrong -> solved, solved -> wrong) changes along the steps; undecided steps in between are passed over.

    >>> flips(["wrong", "undecided", "solved", "wrong", "solved"])
    (2, 1)
    """
    seen = [s for s in status if s != "undecided"]
    changes = list(zip(seen, seen[1:], strict=False))
    return changes.count(("wrong", "solved")), changes.count(("solved", "wrong"))


def final_given(rows: pd.DataFrame, status: str) -> pd.DataFrame:
    """``P(solved at the end | status at step k)`` by step: columns step, mean, low, high, n (items with the status at k)."""
    last = rows.step.max()
    final = rows[rows.step == last].set_index("problem").status.eq("solved").astype(float)
    out = []
    for step, at in rows[rows.step < last].groupby("step"):
        number = mean_number(final.loc[at[at.status == status].problem].to_numpy())
        out.append({"step": step, "mean": number.value, "low": number.low, "high": number.high, "n": number.n})
    return pd.DataFrame(out)


def by_problem(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a problem: counts of flips, whether it was wrong at some step, whether it is solved at the end."""
    out = []
    for problem, run in rows.groupby("problem", sort=False):
        status = run.sort_values("step").status.tolist()
        gained, lost = flips(status)
        out.append({
            "problem": problem, "task": run.task.iloc[0], "gained": gained, "lost": lost, "net": gained - lost,
            "was wrong": "wrong" in status[:-1], "was solved": "solved" in status[:-1], "solved": float(status[-1] == "solved"),
        })  # fmt: skip
    return pd.DataFrame(out)


def findings(rows: pd.DataFrame) -> list[Finding]:
    each = by_problem(rows)
    net = mean_number(each.net)
    wrong = each[each["was wrong"]]
    back, base = mean_number(wrong.solved), mean_number(each.solved)
    late = _late(rows)
    return [
        Finding(
            "The model corrects itself along the steps (4)", decide(net.low, net.high),
            f"of the items that were wrong at some step {back} end solved; flips wrong to right less right to wrong, per item",
            net, "share solved of all items", base, "the interval of the net flips lies above 0",
        ),
        Finding(
            "Late steps correct little (counter-evidence: VGI-Bench, Reason-Early)",
            "not testable" if late.low != late.low else ("reproduced" if late.high < 0 else "undecided"),
            "net flips in the second half of the steps less those in the first half, per item", late,
            "net flips, all steps", net, "the interval lies below 0",
        ),
    ]  # fmt: skip


def _late(rows: pd.DataFrame) -> Number:
    half = rows.step.max() / 2
    parts = [by_problem(part).set_index("problem").net for part in (rows[rows.step >= half], rows[rows.step <= half])]
    return paired(*parts)


def lag_to_right(rows: pd.DataFrame) -> Number:
    """Steps from the last wrong reading to the first right one that stays, mean over corrected items."""
    lags = []
    for _, run in rows.groupby("problem"):
        status = run.sort_values("step").status.tolist()
        if status[-1] != "solved" or "wrong" not in status:
            continue
        first = len(status) - next(i for i, s in enumerate([*status[::-1], ""]) if s != "solved")
        lags.append(first - max(i for i, s in enumerate(status) if s == "wrong"))
    return mean_number(np.array(lags, float))


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows = result.rows[result.rows.status.notna()]
    question = (
        "Does the model change its mind by itself? The clean estimate of every step is read; a correction is a wrong answer that "
        "becomes right."
    )
    if rows.empty:
        note = "These problems have no verifier, and without one no answer can be called right or wrong."
        return pages.build(result, "Self-correction", question, "CoS section 4", [], [], [note])
    sigmas = [*result.sigmas, 0.0]
    axis: dict[str, Any] = {"along": "step", "xlabel": "step, sigma", "ticks": step_ticks(sigmas, 2), "bounds": (-0.03, 1.03)}
    given = [Curve(f"{s} at step k", final_given(rows, s)) for s in ("wrong", "undecided", "solved")]
    shares = rows.assign(**{s: (rows.status == s).astype(float) for s in ("wrong", "undecided", "solved")})
    now = [Curve(s, curve(shares, s)) for s in ("wrong", "undecided", "solved")]
    drawn = panels([
        Panel("solved at the end, given the reading at step k", given, ylabel="share", **axis),
        Panel("readings", now, ylabel="share of items", **axis),
    ])  # fmt: skip
    sections = [
        pages.Section("What becomes of a wrong answer", drawn, "Bands: 95 % bootstrap over items.", _table(rows)),
        _examples(result, store),
    ]
    notes = [f"From the last wrong reading to the first right one that stays: {lag_to_right(rows)} steps."]
    return pages.build(result, "Self-correction", question, "CoS section 4", findings(rows), sections, notes)


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    out = []
    for task, part in [("all", rows), *rows.groupby("task", sort=False)]:
        each = by_problem(part)
        wrong = each[each["was wrong"]]
        out.append({
            "task": task, "items": len(each), "wrong at some step": len(wrong),
            "of these solved at the end": str(mean_number(wrong.solved)),
            "flips wrong to right": int(each.gained.sum()), "flips right to wrong": int(each.lost.sum()),
            "net an item": str(bootstrap(each.net.tolist(), lambda net: float(np.mean(net)))),
            "final solved": str(by_item(each, "solved")),
        })  # fmt: skip
    return pd.DataFrame(out)


def _examples(result: AnalysisResult, store: RunStore) -> pages.Section:
    corrected = [(name, facts) for name, facts in result.units_of(CorrectionFacts).items() if facts.corrected]
    clips = []
    for name, facts in corrected[:EXAMPLES]:
        text = f"“{facts.prompt}”: last wrong step {facts.wrong[-1]}, the step after it, the final video"
        clips.append(pages.Clip(name, text, pages.strip(store.tensors(name)["frames"].numpy())))
    caption = f"The first {EXAMPLES} corrected items in the suite's order; rows as named, columns: pixel frames."
    return pages.Section("Examples", caption=caption if clips else "No item was corrected.", clips=clips)
