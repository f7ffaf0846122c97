"""What becomes of a wrong answer that was held at a step, and the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean, Share
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.driver.kept import kept_clips, listed, reads
from cos_interp.analyses.driver.rules import rules
from cos_interp.analyses.driver.statistics import points
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.kit.verdicts import told
from cos_interp.analyses.self_correction import CorrectionFacts
from cos_interp.analyses.self_correction.measure import mistaken
from cos_interp.reports.figures import Curve, Panel, panels, step_ticks

PLACES = {"held": 0.3, "early": 0.15, "half": 0.5, "late": 0.7}  # share of the steps at which a rule reads, fixed beforehand
FLICKER = 0.5  # a wrong answer that is read again at the next step less often than this was never held
STATUSES = ("wrong", "undecided", "solved")
EXAMPLES = 4  # shown runs of a kind, the first ones in the suite's order
CORRECTED, STAYED, NEVER = "wrong, then right", "wrong, and not right at the end", "no wrong answer"
EXAMPLES_CAPTION = (
    "Clean estimates along some steps, the final video beside them, and what the verifier reads; marked: the last step with a "
    f"wrong answer. The first {EXAMPLES} of those that were corrected, of those that were not, and of the others that were kept."
)
QUESTION = (
    "Does the model change its mind by itself? The clean estimate of every step is read. A wrong answer (wrong goal, wrong side, "
    "wrong path; not a video that is broken or unfinished) is held at a step where it is read there and at the step before, the "
    "same one; how often is the final video right then?"
)


def place(steps: int, share: float) -> int:
    """The step at a share of a run of ``steps``; never the first one, which has none before it.

    >>> [place(20, share) for share in PLACES.values()]
    [6, 3, 10, 14]
    """
    return min(max(1, round(share * steps)), steps - 1)


def readings(rows: pd.DataFrame, step: int) -> pd.DataFrame:
    """One row an item, of what is read at a step: a wrong answer (``wrong``), that of the step before too (``held``), no answer
    at all (``open``); whether the step before read a wrong answer (``was``), and whether the final video is right."""
    before, now, final = (rows[rows.step == k].set_index("problem") for k in (step - 1, step, rows.step.max()))
    before, final = before.reindex(now.index), final.reindex(now.index)
    same = np.logical_and.reduce([now[c].fillna("") == before[c].fillna("") for c in ("status", "error", "answer")])
    wrong, was = (pd.Series(map(mistaken, at.status, at.error), now.index, dtype=bool) for at in (now, before))
    return pd.DataFrame({
        "task": now.task, "wrong": wrong, "held": wrong & same, "open": ~wrong & (now.status != "solved"), "was": was,
        "right": (final.status == "solved").astype(float),
    })  # fmt: skip


def unfit(read: pd.DataFrame, step: int, steps: int) -> str | None:
    """Why nothing can be said: there is no step left, or most wrong answers of the step before are not read again, so that
    nothing was held. None where they are, or are none."""
    if step == steps - 1:
        return f"step {step} is the last one, whose clean estimate is the final video"
    before = Share(read.held[read.was])
    if before.n == 0 or before.value >= FLICKER:
        return None
    return f"of {before.n} wrong answers of the step before {before.successes} are read again: readings flicker, nothing is held"


def once_held(rows: pd.DataFrame, until: int) -> pd.Series:
    """Of every item that holds a wrong answer at some step up to ``until``, whether the final video is right, once."""
    held = [read.right[read.held] for read in (readings(rows, step) for step in range(1, until + 1))]
    found = pd.concat(held) if held else pd.Series(dtype=float)
    return found[~found.index.duplicated()]


def nothing_late(late: Share, early: Share, smallest: float) -> str | None:
    """Why that wrong answers stay says nothing of late steps: as many of those held early may. None where early ones are put
    right, and where late ones do not stay in any case."""
    if late.n == 0 or late.value < smallest or early.interval()[1] < smallest:
        return None
    return f"of the wrong answers of the first half of the steps {early.number()} stay: this says nothing of late steps"


def alike(read: pd.DataFrame) -> Number:
    """Share right at the end of the items that show no answer at the step, each task weighted as among the held wrong answers."""
    weights = read[read.held].task.value_counts(normalize=True)
    beside = read[read.open & read.task.isin(weights.index)]
    shares = beside.groupby("task").right.mean()
    known = weights[weights.index.isin(shares.index)]
    if known.empty:
        return Number(float("nan"))
    return Number(float((known * shares[known.index]).sum() / known.sum()), n=len(beside))


def findings(result: AnalysisResult, rows: pd.DataFrame) -> list[Finding]:
    return [*[_corrected(result, rows, key) for key in ("held", "early", "half")], _late(result, rows)]


def _corrected(result: AnalysisResult, rows: pd.DataFrame, key: str) -> Finding:
    steps = int(rows.step.max())
    step = place(steps, PLACES[key])
    read = readings(rows, step)
    held = read[read.held]
    return result.judge(
        f"self-correction.{key}", Share(held.right),
        f"at step {step} (sigma {_sigma(rows, step):.2f}) {int(read.wrong.sum())} of {len(read)} items read as a wrong answer, "
        f"{len(held)} of them as at the step before, and {int(read.open.sum())} as none; of the held wrong answers the final "
        "video is right in",
        alike(read), unfit(read, step, steps),
    )  # fmt: skip


def _late(result: AnalysisResult, rows: pd.DataFrame) -> Finding:
    steps = int(rows.step.max())
    late, half = (place(steps, PLACES[key]) for key in ("late", "half"))
    read, key = readings(rows, late), "self-correction.late"
    stays, early = Share(1 - read[read.held].right), Share(1 - once_held(rows, half))
    return result.judge(
        key, stays,
        f"of {int(read.held.sum())} items that hold a wrong answer at step {late} (sigma {_sigma(rows, late):.2f}) the final "
        f"video is not right in; control up to step {half}",
        early.number(), unfit(read, late, steps) or nothing_late(stays, early, rules()[key].smallest),
    )  # fmt: skip


def _sigma(rows: pd.DataFrame, step: int) -> float:
    return float(rows.sigma[rows.step == step].iloc[0])


def final_given(rows: pd.DataFrame, status: str) -> pd.DataFrame:
    """``P(solved at the end | status at step k)`` by step: columns step, mean, low, high, n (items with the status at k)."""
    last = rows.step.max()
    final = rows[rows.step == last].set_index("problem").status.eq("solved").astype(float)
    return _curve({
        step: Share(final.loc[at[at.status == status].problem]) for step, at in rows[rows.step < last].groupby("step")
    })  # fmt: skip


def _curve(shares: dict[Any, Share]) -> pd.DataFrame:
    return points({step: share.number() for step, share in shares.items()}, "step")


def lag_to_right(rows: pd.DataFrame) -> Number:
    """Steps from the last wrong reading to the first right one that stays, mean over corrected items."""
    lags = []
    for _, run in rows.groupby("problem"):
        status = run.sort_values("step").status.tolist()
        if status[-1] != "solved" or "wrong" not in status:
            continue
        first = len(status) - next(i for i, s in enumerate([*status[::-1], ""]) if s != "solved")
        lags.append(first - max(i for i, s in enumerate(status) if s == "wrong"))
    return Mean(np.array(lags, float)).number()


def report(result: AnalysisResult, store: RunStore) -> Report:
    known = told(result.rows).groupby(result.rows.problem).transform("all")
    rows = result.rows[known]
    if rows.empty:
        note = "These problems have no verifier, and without one no answer can be called right or wrong."
        return pages.build(result, "Self-correction", QUESTION, "CoS section 4", [], [], [note])
    sections = [_figures(rows, [*result.sigmas, 0.0]), *_examples(result, store)]
    notes = [
        "Wrong readings less right ones, counted as flips along the steps, telescope to the last reading minus the first: they "
        "say nothing of a correction, and none is counted here.",
        f"From the last wrong reading to the first right one that stays: {lag_to_right(rows)} steps.",
    ]
    found = findings(result, rows)
    return pages.build(result, "Self-correction", QUESTION, "CoS section 4", found, sections, notes, ("correlation",))


def _figures(rows: pd.DataFrame, sigmas: list[float]) -> pages.Section:
    axis: dict[str, Any] = {"along": "step", "xlabel": "step, sigma", "ticks": step_ticks(sigmas, 2), "bounds": (-0.03, 1.03)}
    given = [Curve(f"{s} at step k", final_given(rows, s)) for s in STATUSES]
    now = [Curve(s, _curve({k: Share(at.status == s) for k, at in rows.groupby("step")})) for s in STATUSES]
    drawn = panels([
        Panel("solved at the end, given the reading at step k", given, ylabel="share", **axis),
        Panel("readings", now, ylabel="share of items", **axis),
    ])  # fmt: skip
    step = place(int(rows.step.max()), PLACES["held"])
    caption = (
        f"Over {rows.problem.nunique()} items; left, those with the reading. Bands: exact 95 % interval of a share. "
        f"Wrong: also what is broken or unfinished. Table: at step {step}."
    )
    return pages.Section("What becomes of a wrong answer", drawn, caption, _table(rows, step))


def _table(rows: pd.DataFrame, step: int) -> pd.DataFrame:
    out, every = [], readings(rows, step)
    for task, read in [("all", every), *every.groupby("task", sort=False)]:
        out.append({
            "task": task, "items": len(read), "wrong answer": int(read.wrong.sum()), "held": int(read.held.sum()),
            "of these right at the end": str(Share(read.right[read.held]).number()),
            "no answer": int(read.open.sum()), "of these right at the end ": str(Share(read.right[read.open]).number()),
            "right at the end": str(Share(read.right).number()),
        })  # fmt: skip
    return pd.DataFrame(out)


def _examples(result: AnalysisResult, store: RunStore) -> list[pages.Section]:
    """Runs along their steps: those that corrected themselves, those that stayed wrong, others; and every item with a link."""
    about = result.units_of(CorrectionFacts)
    kinds: dict[str, list[pages.Reel]] = {_kind(facts): [] for facts in about.values()}
    for one in kept_clips(result, store):
        facts = about[one.unit]
        if len(kinds[_kind(facts)]) < EXAMPLES:
            last = facts.wrong[-1] if facts.wrong else None
            mark = one.names.index(f"step {last}") if f"step {last}" in one.names else None
            kinds[_kind(facts)].append(one.reel(say={"sigma": "sigma"}, at=_place, along="step", mark=mark))
    reels = [reel for kind in (CORRECTED, STAYED, NEVER) for reel in kinds.get(kind, [])]
    caption = EXAMPLES_CAPTION if any(f.corrected for f in about.values()) else f"No item was corrected. {EXAMPLES_CAPTION}"
    ends = {row["problem"]: said[1] for row in result.rows.to_dict("records") if (said := reads(row))}  # of the last step
    table = pd.DataFrame([
        {"what became of it": _kind(facts), "wrong at steps": ", ".join(map(str, facts.wrong)), "at the end": ends.get(name)}
        for name, facts in about.items()
    ], index=pd.Index(about, name="problem"))  # fmt: skip
    return [pages.Section("Examples", caption=caption, reels=reels, table=listed(table, result.rows, reels))]


def _kind(facts: CorrectionFacts) -> str:
    return CORRECTED if facts.corrected else STAYED if facts.wrong else NEVER


def _place(name: str, row: Row) -> dict[str, str | int]:
    return {"step": int(row["step"])}
