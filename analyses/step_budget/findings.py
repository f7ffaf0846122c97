"""Does the chosen allocation solve more than the scheduler's own and than random ones, for the same calls?"""

from __future__ import annotations

import pandas as pd

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import DIFFERENCE, Mean
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.rules import no_room
from cos_interp.analyses.driver.statistics import relative
from cos_interp.analyses.kit.verdicts import whole
from cos_interp.analyses.step_budget.allocations import OWN

KINDS = {OWN: "the scheduler's own levels", "random": "random allocations"}


def by_kind(tests: pd.DataFrame, value: str) -> pd.DataFrame:
    """A value by item, a column each for ``chosen``, ``own`` and ``random``, the mean of its draws. Items without it are left
    out."""
    known = tests[tests.problem.isin(tests.problem[tests[value].notna()])]
    columns = ["chosen", *KINDS]
    if known.empty:
        return pd.DataFrame(columns=columns, dtype=float)
    kinds = known.allocation.str.split().str[0].rename("kind")
    return known[value].astype(float).groupby([known.problem, kinds]).agg(whole).unstack().reindex(columns=columns)


def findings(result: AnalysisResult) -> list[Finding]:
    tests = result.rows[result.rows.stage == "test"]
    table = by_kind(tests, "solved")
    more = [_more(result, table, f"step-budget.{key}", control) for key, control in (("answers", OWN), ("search", "random"))]
    return [*more, _nearer(result, tests)]


def _more(result: AnalysisResult, table: pd.DataFrame, key: str, control: str) -> Finding:
    """How many more items are solved than with one of the controls."""
    if table.empty:
        return result.judge(key, Mean([]), "nobody judges these videos", Mean([]).number())
    unfit = no_room(key, 1 - float(table[control].mean()), KINDS[control], "give fewer steps (--num-steps)")
    shares = {name: Mean(table[name], bounds=(0, 1)).number() for name in ("chosen", control)}
    said = f"the chosen allocation solves {shares['chosen']}; more than {KINDS[control]} for the same calls, by"
    return result.judge(key, Mean(table.chosen - table[control], bounds=DIFFERENCE), said, shares[control], unfit)


def _nearer(result: AnalysisResult, tests: pd.DataFrame) -> Finding:
    key, table = "step-budget.nearer", by_kind(tests, "distance")
    table = table[(table[list(KINDS)] > 0).all(axis=1)]
    if table.empty:
        same = "the final latent does not depend on where the steps lie"
        return result.judge(key, Mean([]), "no distance was measured", Mean([]).number(), same if len(tests) else None)
    control = str(table[list(KINDS)].mean().idxmin())
    said = (
        f"the final latent is {Mean(table.chosen).number()} of its norm from that of a fine run with the chosen allocation, and "
        f"{Mean(table[control]).number()} with {KINDS[control]}; nearer, as a share of the larger, by"
    )
    nearer = Mean(relative(table[control], table.chosen), bounds=DIFFERENCE)
    return result.judge(key, nearer, said, Mean(table[control]).number())
