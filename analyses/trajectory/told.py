"""How well states tell apart the answers that runs of one problem end with. Pure maths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import pandas as pd

from cos_interp.analyses.driver.store import Row

NOISE = "noise"  # x_t at the first step, as an ideal observer reads it
Scores = Mapping[str, float]  # how much a state speaks for each right answer


def concordance(first: Scores, second: Scores, ends: tuple[str, str]) -> float:
    """Do two runs' states tell which of two answers is whose? 1 yes, 0 the wrong way round, 0.5 alike.

    Each state speaks for the first answer over the second by a difference of scores; the run that ends with it must do so more.
    So what speaks for an answer in both runs, because the problem prefers it, counts for nothing. Its mean over pairs of runs
    is the area under the ROC curve of that difference.

    >>> concordance({"a": 3.0, "b": 1.0}, {"a": 2.0, "b": 1.0}, ("a", "b"))
    1.0
    """
    one, other = ends
    more = (first[one] - first[other]) - (second[one] - second[other])
    return 0.5 if more == 0 else float(more > 0)


def told_rows(runs: Sequence[Row], told: Sequence[Mapping[str, Sequence[Scores]]], steps: Sequence[int]) -> list[Row]:
    """A row for each pair of runs that end solved with different answers, each reading and step.

    ``told``: of each run, by reading (``x0hat``, ``x_t``, :data:`NOISE`), scores at every step.
    """
    rows: list[Row] = []
    for a, b in combinations(range(len(runs)), 2):
        ends = (runs[a]["answer"], runs[b]["answer"])
        if ends[0] == ends[1] or {runs[a]["status"], runs[b]["status"]} != {"solved"}:
            continue
        for reading, found in told[a].items():
            for place, step in enumerate(steps):
                right = concordance(found[place], told[b][reading][place], ends)
                rows.append({"kind": "told", "first": a, "second": b, "reading": reading, "step": step, "told": right})
    return rows


def by_item(rows: pd.DataFrame, step: int) -> pd.DataFrame:
    """Area under the curve by item at a step: a row an item, a column a reading."""
    here = rows[rows.step == step]
    return here.assign(told=here.told.astype(float)).pivot_table("told", "problem", "reading")
