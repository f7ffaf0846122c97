"""What moving the noise found, by the rules."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean, PairedShares, Share
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.seed_choice import CLAIM_AT
from cos_interp.analyses.seed_choice.measure import middle

CONTROLS = ["random", "shifted"]
LARGEST = 0.5  # standard deviations from 0, within which a threshold is the ideal observer's


def by_way(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """A row a problem, a column a way: ``toward``, ``random``, ``shifted``."""
    found = rows.assign(number=rows[value].astype(float)).pivot_table("number", "problem", "way", sort=False)
    return found.reindex(columns=["toward", *CONTROLS])


def either(found: pd.DataFrame) -> pd.Series:
    """Whether one of both controls gives the target; NaN where one of them is missing."""
    return found[CONTROLS].max(axis=1, skipna=False)


def moved_to(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the noise where the claim has it, and their controls."""
    return rows[(rows.kind == "dose") & (rows.dose == CLAIM_AT)]


def reflected(rows: pd.DataFrame, step: int) -> pd.DataFrame:
    """The reflections at a step of items whose state lies on the side of their own answer."""
    return rows[(rows.kind == "reflected") & (rows.step == step) & (rows.position < 0)]


def threshold(doses: np.ndarray, gives: np.ndarray) -> float:
    """Where between the tested doses a run turns to the target, by Spearman and Kaerber (1931): the integral of the share that
    does not. An item that turns nowhere counts as the last dose, one that always has as the first.

    >>> threshold(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0, 0, 1, 1]))
    0.0
    """
    return float(doses[0] + np.trapezoid(1 - gives, doses))


def thresholds(rows: pd.DataFrame) -> pd.Series:
    """By problem, over the doses that lie alike on both sides of 0, so that cutting them off moves no mean."""
    along = rows[(rows.kind == "dose") & (rows.way == "toward")]
    along = along[along.dose.isin(-along.dose.unique())]
    table = along.assign(number=along.is_target.astype(float)).pivot_table("number", "problem", "dose", sort=True)
    doses = table.columns.to_numpy(float)
    return pd.Series({name: threshold(doses, row.to_numpy(float)) for name, row in table.iterrows()}, dtype=float)


def findings(result: AnalysisResult, rows: pd.DataFrame, steps: int) -> list[Finding]:
    """All claims from all rows, judged."""
    fit = rows[rows.eligible.astype(bool)]
    return [
        _steered(result, fit), _weight(result, rows), _noise(result, fit), _threshold(result, fit),
        _reflected(result, fit, middle(steps)),
    ]  # fmt: skip


def _steered(result: AnalysisResult, fit: pd.DataFrame) -> Finding:
    at = moved_to(fit)
    found, toward = by_way(at, "is_target"), at[at.way == "toward"]
    kept = by_way(at, "is_own")
    return result.judge(
        "seed-choice.steered", PairedShares(found.toward, either(found)),
        f"with the noise at +{CLAIM_AT:g} SD (moved by {Mean(toward.by).number()} SD, {Mean(toward.share).number()} of its norm) "
        f"the run gives the chosen answer in {Share(found.toward).number()}, along a random direction in "
        f"{Share(found.random).number()}, along the shifted one in {Share(found.shifted).number()} (its own answer is kept there "
        f"in {Share(kept.random).number()} and {Share(kept.shifted).number()}); more than either control by",
        Share(either(found)).number(),
        short=f"with its noise moved to +{CLAIM_AT:g} SD on the other answer's side the run gives that answer, more often than "
        "with either control, by",
    )  # fmt: skip


def _weight(result: AnalysisResult, rows: pd.DataFrame) -> Finding:
    found = by_way(moved_to(rows), "weight")
    untouched = rows[rows.kind == "noise"].set_index("problem").weight.astype(float).reindex(found.index)
    best = found[CONTROLS].assign(untouched=untouched).max(axis=1, skipna=False)
    shown = Mean(found.toward, bounds=(0, 1)).number()
    return result.judge(
        "seed-choice.weight", Mean(found.toward - best, bounds=(-1, 1)),
        f"the other video's weight in the final latent is {shown} with the noise at +{CLAIM_AT:g} SD; more than with any control "
        "by",
        Mean(best, bounds=(0, 1)).number(),
    )  # fmt: skip


def _noise(result: AnalysisResult, fit: pd.DataFrame) -> Finding:
    found = fit[fit.kind == "noise"]
    named, chance = (found.set_index("problem")[name].astype(float) for name in ("named", "chance"))
    return result.judge(
        "seed-choice.noise", Mean(named - chance, bounds=(-1, 1)),
        f"an ideal observer of the first state names the run's answer in {Share(named).number()}; more often than from "
        "other noises by",
        Mean(chance, bounds=(0, 1)).number(),
    )  # fmt: skip


def _threshold(result: AnalysisResult, fit: pd.DataFrame) -> Finding:
    """The size of each item's threshold: that of their mean is 0 for a model that turns by chance, too."""
    found = thresholds(fit)
    return result.judge(
        "seed-choice.threshold", Mean(LARGEST - found.abs()),
        f"half of the runs have turned with the noise at {Mean(found).number()} SD between the answers, in size "
        f"{Mean(found.abs()).number()} an item; the bound minus the size is",
        Mean([0.0] * len(found)).number(),
    )  # fmt: skip


def _reflected(result: AnalysisResult, fit: pd.DataFrame, step: int) -> Finding:
    at = reflected(fit, step)
    found, toward = by_way(at, "is_target"), at[at.way == "toward"]
    return result.judge(
        "seed-choice.reflected", PairedShares(found.toward, either(found)),
        f"reflected at step {step}, where the state stands {Mean(-toward.position).number()} SD from the boundary, the run gives "
        f"the other answer in {Share(found.toward).number()}, after as large a move along a random direction in "
        f"{Share(found.random).number()}, along the shifted one in {Share(found.shifted).number()}; more than either control by",
        Share(either(found)).number(),
    )  # fmt: skip
