"""What the tests on unseen pairs say: does the set suffice, is it necessary, is it the smallest?"""

from __future__ import annotations

import pandas as pd

from cos_interp.analyses.circuit import SearchFacts
from cos_interp.analyses.circuit.checks import (
    ALONE,
    EARLY,
    FOREIGN,
    LATE,
    LEFT,
    LESS,
    NARROW,
    OUT,
    RANDOM,
    RANDOM_LEFT,
    RANDOM_OUT,
    WAYS,
    WHOLE,
)
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import DIFFERENCE, EFFECT, EFFECTS, Mean
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.statistics import effect
from cos_interp.analyses.kit.verdicts import whole

COMPLETE = 0.9  # of the way that all components together must go, else they are not all there is


def by_pair(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a tested pair, a column a way: its effect from -1 to 1, the mean over draws of the random sets."""
    if rows.empty or "way" not in rows or not (rows.table == "check").any():
        return pd.DataFrame(columns=[*WAYS], dtype=float)
    checks = rows[rows.table == "check"]
    found = checks.assign(effect=effect(checks.effect)).pivot_table(index="pair", columns="way", values="effect", aggfunc=whole)
    return found.reindex(columns=[*WAYS])  # nothing of what an older run did not try


def findings(result: AnalysisResult) -> list[Finding]:
    """Of the pairs that the search has not seen; of own pairs with a scorer also whose answer is given."""
    at, unfit = by_pair(result.rows), _unfit(result)
    controls = [RANDOM, FOREIGN] if result.config.pair_file is None else [RANDOM]  # own pairs have no other items
    control = at[controls].max(axis=1, skipna=False)
    lost, lost_by_random = at[WHOLE] - at[LEFT], at[WHOLE] - at[RANDOM_LEFT]
    number = lambda values, bounds=EFFECTS: Mean(values.astype(float), bounds=bounds)
    said = (
        ("sufficient", at[ALONE] - control, control, EFFECT, "the found components alone go further than the larger control by"),
        ("necessary", lost - lost_by_random, lost_by_random, EFFECTS,
         "without them more effect is lost than without random ones, by"),
        ("knocked-out", at[OUT] - at[RANDOM_OUT], at[RANDOM_OUT], EFFECT,
         "set back, they cost the donor's run more than random ones by"),
        ("smallest", at[ALONE] - at[LESS], at[LESS], EFFECT, "they go further than the best set with one component less by"),
        ("read-early", at[EARLY] - at[LATE], at[LATE], EFFECTS, "what is read early goes further than what is read after it by"),
        ("narrowed", at[NARROW] - control, control, EFFECT, "narrowed, they go further than the larger control by"),
    )  # fmt: skip
    of_its_own = {"smallest": _one(at), "read-early": _unread(at)}
    found = [
        result.judge(f"circuit.{name}", number(values), text, number(beside, most).number(), unfit or of_its_own.get(name))
        for name, values, beside, most, text in said
    ]
    return [*found, _answers(result, unfit)] if result.config.scored else found


def _one(at: pd.DataFrame) -> str | None:
    """Why nothing can be smaller; None where the best set with one component less does anything at all."""
    return "a set of one component is the smallest there is" if len(at) and (at[LESS] == 0).all() else None


def _unread(at: pd.DataFrame) -> str | None:
    """Why nothing is said of early and late; None where both were tried."""
    tried = at[[EARLY, LATE]].notna().all(axis=1).any()
    return "the circuit has no attention, or no block with any comes after it" if len(at) and not tried else None


def _answers(result: AnalysisResult, unfit: str | None) -> Finding:
    at = by_pair(result.rows.assign(effect=_given(result.rows)))
    gain = Mean(at[ALONE] - at[RANDOM], bounds=DIFFERENCE)
    alone = Mean(at[ALONE], bounds=(0, 1)).number()
    said = f"the scorer reads the other run's answer in {alone} with the found components; more than with random ones by"
    return result.judge("circuit.answers", gain, said, Mean(at[RANDOM], bounds=(0, 1)).number(), unfit)


def _given(rows: pd.DataFrame) -> pd.Series:
    """1 where a video gives the donor's answer, 0 where it does not; missing where nobody judged."""
    if "outcome" not in rows:
        return pd.Series(float("nan"), rows.index)
    return (rows.outcome == "donor").astype(float).where(rows.outcome.notna())


def _unfit(result: AnalysisResult) -> str | None:
    searched = list(result.units_of(SearchFacts).values())
    if searched and searched[0].circuit is None:
        return f"no circuit was found: {searched[0].why}"
    whole = by_pair(result.rows)[WHOLE]
    if len(whole) and not float(whole.mean()) >= COMPLETE:
        return f"all components together go {whole.mean():.2f} of the way: something else carries the answer too"
    return None
