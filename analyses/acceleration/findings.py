"""What may be saved: answers kept by the chosen schedule, and what the choice adds."""

from __future__ import annotations

import pandas as pd

from cos_interp.analyses.acceleration import judged
from cos_interp.analyses.acceleration.measure import SHOWN
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import DIFFERENCE, Mean, Share
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.rules import no_room
from cos_interp.analyses.driver.statistics import relative
from cos_interp.analyses.kit.verdicts import whole


def deciding(rows: pd.DataFrame) -> pd.DataFrame:
    """The tests at the saving that is judged."""
    tests = rows[rows.stage == "test"]
    return tests[tests.saving == judged(tests.saving.unique())] if len(tests) else tests


def by_kind(tests: pd.DataFrame, value: str) -> pd.DataFrame:
    """A value by item, a column each for ``chosen``, ``uniform`` and ``random``, the mean of its draws. Items without it are left
    out."""
    known = tests[tests.problem.isin(tests.problem[tests[value].notna()])]
    kinds = known.schedule.str.split().str[0].rename("kind")
    if known.empty:
        return pd.DataFrame(columns=["chosen", "uniform", "random"], dtype=float)
    table = known[value].astype(float).groupby([known.problem, kinds]).agg(whole).unstack()
    return table.reindex(columns=["chosen", "uniform", "random"])


def findings(result: AnalysisResult) -> list[Finding]:
    tests = deciding(result.rows)
    return [_kept(result, tests), _nearer(result, tests), _more_kept(result, tests)]


def _kept(result: AnalysisResult, tests: pd.DataFrame) -> Finding:
    table = by_kind(tests, "kept")
    said = f"with {_share(tests)} of all block calls saved the answer of a solved item stays the same in"
    return result.judge("acceleration.kept", Share(table.chosen), said, Share(table.uniform).number())


def _nearer(result: AnalysisResult, tests: pd.DataFrame) -> Finding:
    table = by_kind(tests, "distance")
    if table.empty:
        return result.judge("acceleration.schedule", Mean([]), "no schedule was tested", Mean([]).number())
    control = str(table[["uniform", "random"]].mean().idxmin())
    nearer = Mean(relative(table[control], table.chosen), bounds=DIFFERENCE)
    said = (
        f"the final latent moves by {Mean(table.chosen).number()} of its norm with the chosen schedule and by "
        f"{Mean(table[control]).number()} with {WORDS[control]}, at {_share(tests)} of all block calls; nearer, as a share of "
        "the larger, by"
    )
    return result.judge("acceleration.schedule", nearer, said, Mean(table[control]).number())


WORDS = {"uniform": SHOWN["uniform"], "random": "random schedules"}


def _more_kept(result: AnalysisResult, tests: pd.DataFrame) -> Finding:
    table = by_kind(tests, "kept")
    means = table[["uniform", "random"]].mean()
    control = str(means.idxmax()) if means.notna().any() else "uniform"
    gain = Mean(table.chosen - table[control], bounds=DIFFERENCE)
    unfit = no_room("acceleration.schedule-answers", 1 - float(means[control]), WORDS[control], "save more (--savings)")
    said = f"more answers stay than with {WORDS[control]}, by"
    return result.judge("acceleration.schedule-answers", gain, said, Mean(table[control], bounds=(0, 1)).number(), unfit)


def _share(tests: pd.DataFrame) -> str:
    return f"{tests.saving.iloc[0]:.3g}" if len(tests) else "no"
