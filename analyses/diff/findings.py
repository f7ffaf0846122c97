"""Which stretch of layers makes one model of the other, chosen on half of the items and tested on the rest."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import DIFFERENCE, Mean, PairedShares, Share
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.kit.halves import choosing_half

KEEP = 0.9  # of the way from one model's video to the other's, from which on a stretch carries the difference


@dataclass(frozen=True)
class Chosen:
    """A stretch of layers, the other one that is its control (None: there is none), and its mean effect where it was chosen."""

    region: str
    control: str | None
    effect: float


def stretches(rows: pd.DataFrame, what: str) -> pd.DataFrame:
    """Rows of transplants by stretches of layers, of items whose two videos differ; none where nothing could be put in."""
    if "unit" not in rows:
        return rows[:0]
    found = rows[(rows.kind == "transplant") & (rows.what == what) & rows.unit.isin(["layer", "window"])]
    found = found[found.effect.notna()]
    return found.assign(region=found.expert + ", " + found.region) if found.expert.nunique() > 1 else found


def chosen(made: pd.DataFrame) -> Chosen | None:
    """By the means over half of the items: the shortest stretch that goes KEEP of the way, the strongest of these, or of all
    where none does; as its control the strongest of as many layers that shares none with it. None without rows."""
    half = made[made.problem.isin(choosing_half(made))] if len(made) else made
    if half.empty:
        return None
    means = half.groupby("region", sort=False).agg(
        effect=("effect", "mean"), expert=("expert", "first"), first=("first", "first"), last=("last", "first")
    )
    means["size"] = means["last"] - means["first"] + 1
    enough = means[means.effect >= KEEP]
    best = enough.sort_values(["size", "effect"], ascending=[True, False]) if len(enough) else means.sort_values("effect")[::-1]
    at = best.iloc[0]
    apart = (means.expert != at.expert) | (means["first"] > at["last"]) | (means["last"] < at["first"])
    others = means[apart & (means["size"] == at["size"])]
    control = None if others.empty else str(others.effect.idxmax())
    return Chosen(str(best.index[0]), control, float(at.effect))


def held(effect: pd.Series) -> pd.Series:
    """Effects within 0 and 1: a stretch that is the whole difference has exactly 1 on every item, which only a number between
    bounds can be judged by."""
    return effect.clip(0, 1)


def tested(made: pd.DataFrame, choice: Chosen, value: str = "effect") -> tuple[pd.Series, pd.Series]:
    """The value of the chosen stretch and of its control, by item of the other half."""
    rest = made[~made.problem.isin(choosing_half(made))]
    own, control = (
        rest[rest.region == name].set_index("problem")[value].astype(float) for name in (choice.region, choice.control)
    )
    return own, control.reindex(own.index)


def findings(result: AnalysisResult) -> list[Finding]:
    """The claims, judged. The answers' stretch is that of the weights."""
    rows = result.rows
    found = [_region(result, rows, what, key) for what, key in (("weights", "region"), ("activations", "region-activations"))]
    return [*found, _answers(result, stretches(rows, "weights"))]


def same(rows: pd.DataFrame) -> bool:
    """Whether the two models make the same video of every item, bit for bit."""
    return bool((rows[(rows.kind == "plain") & (rows.what == "other")].moved == 0).all())


def _region(result: AnalysisResult, rows: pd.DataFrame, what: str, key: str) -> Finding:
    made = stretches(rows, what)
    choice, key = chosen(made), f"diff.{key}"
    if choice is None:
        why = "the two models make the same videos" if same(rows) else f"no {what} were put from one model into the other"
        return result.judge(key, Mean([]), f"no {what} make a difference", Mean([]).number(), why)
    own, control = map(held, tested(made, choice))
    went = Mean(own, bounds=(0, 1)).number()
    named = "carry" if choice.effect >= KEEP else "carry the largest part of"
    said = (
        f"the {what} of {choice.region} {named} the difference between the two models ({went} of the "
        f"way on items that did not choose it); more than as many other layers ({choice.control or 'none are left'}), by"
    )
    unfit = None if choice.control else "the model has too few layers for a control"
    gain = Mean(own - control, bounds=DIFFERENCE)
    return result.judge(key, gain, said, Mean(control, bounds=(0, 1)).number(), unfit)


def _answers(result: AnalysisResult, made: pd.DataFrame) -> Finding:
    choice = chosen(made)
    if choice is None:
        return result.judge("diff.answers", PairedShares([], []), "no answers were compared", Share([]).number())
    own, control = tested(made, choice, "as_other")
    said = (
        f"of the items on which the verdicts of the two models differ, {Share(own).number()} give the other's with "
        f"{choice.region}; more than with the control, by"
    )
    return result.judge("diff.answers", PairedShares(own, control), said, Share(control).number())
