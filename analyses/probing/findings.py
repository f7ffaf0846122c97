"""What a probe run concludes: the order of perception, reasoning and consolidation in depth, and whether what is read is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import DIFFERENCE, Mean, Statistic
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.driver.rules import rules
from cos_interp.probes.roles import centre
from cos_interp.probes.scoring import balanced_accuracy
from cos_interp.tasks.labels import FAMILIES

READABLE = 0.05  # a target whose scores nowhere exceed those of random labels by position by so much has no place in depth
KEPT = 0.8  # the control must leave the answer of more than this share of pairs as it is, or nothing of meaning can be seen
TOLD = 0.5  # a probe that reads fewer of the exchanged tokens right in both runs has not put the other's label in
NAMES = ("perception", "reasoning", "consolidation")


@dataclass(frozen=True)
class Depth:
    """A target's confusions out of fold by clip, and those of random labels by position: ``[clip, layer, step, true, read]``;
    ``clips``: the numbers of the clips. ``gain``: the score of the best layer beyond that of what goes in."""

    target: str
    family: str
    score: np.ndarray
    control: np.ndarray
    clips: tuple[int, ...]
    gain: float = float("inf")

    @property
    def classifies(self) -> bool:
        """Whether the tallies are confusions, and not sums of squares."""
        return bool(np.issubdtype(self.score.dtype, np.integer))

    def of(self, clips: Sequence[int]) -> Depth:
        """The same on some of its clips."""
        at = [self.clips.index(clip) for clip in clips]
        return Depth(self.target, self.family, self.score[at], self.control[at], tuple(clips), self.gain)


def scored(tally: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Balanced accuracy ``[layer]``, mean over the steps, of clips drawn ``times [clip]`` each. NaN where a class is lost, since
    chance is another one without it."""
    shaped = (times @ tally.reshape(len(tally), -1)).reshape(tally.shape[1:])
    if ((shaped.sum(-1) == 0) & (tally.sum(0).sum(-1) > 0)).any():
        return np.full(tally.shape[1], np.nan)
    return balanced_accuracy(shaped).mean(-1)


def selectivity(depth: Depth, times: np.ndarray | None = None) -> np.ndarray:
    """Score minus that of random labels by position, ``[layer]``."""
    times = np.ones(len(depth.clips)) if times is None else times
    return scored(depth.score, times) - scored(depth.control, times)


def order_findings(result: AnalysisResult, found: Sequence[Depth]) -> list[Finding]:
    """Each family's first target against the next family's: is it read deeper?"""
    by: dict[str, Depth] = {}
    for depth in sorted(found, key=lambda depth: FAMILIES.index(depth.family)):
        by.setdefault(depth.family, depth)
    pairs = zip(NAMES, NAMES[1:], strict=False)
    return [_ordered(result, by[a], by[b]) for a, b in pairs if a in by and b in by]


def _ordered(result: AnalysisResult, first: Depth, second: Depth) -> Finding:
    shared = [clip for clip in first.clips if clip in second.clips]
    first, second = first.of(shared), second.of(shared)

    def deeper(clips: Sequence[int]) -> float:
        times = np.bincount(clips, minlength=len(shared)).astype(float)
        return centre(selectivity(second, times)) - centre(selectivity(first, times))

    noise = [_of_noise(depth) for depth in (first, second)] if shared else [np.nan, np.nan]
    weak = [reason for depth in (first, second) if shared and (reason := _weak(depth)) is not None]
    return result.judge(
        f"probes.{first.family}-first", Statistic(range(len(shared)), deeper),
        f"{second.family} ({second.target}) is read deeper than {first.family} ({first.target}), in shares of the depth and on "
        f"the {len(shared)} clips that have both, by",
        Number(noise[1] - noise[0], n=len(shared)),
        "; ".join(weak) or None,
    )  # fmt: skip


def _weak(depth: Depth) -> str | None:
    """Why a target has no place in depth; None where it has."""
    if not selectivity(depth).max() > READABLE:
        return f"{depth.target} is nowhere read better than random labels by position by {READABLE}"
    if not depth.gain > READABLE:
        return f"{depth.target} is nowhere read better than from what goes in by {READABLE} ({depth.gain:.2f})"
    return None


def _of_noise(depth: Depth) -> float:
    """Where in depth random labels by position are read, above the layer that reads them worst."""
    control = scored(depth.control, np.ones(len(depth.clips)))
    return centre(control - control.min())


# --- use -------------------------------------------------------------------------------------------------------------


def eligible(use: pd.DataFrame) -> pd.DataFrame:
    """Rows of the pairs whose exchange did what it says: the probe reads most of the exchanged tokens right in both runs."""
    return use[use.told.astype(float) > TOLD]


def kept(use: pd.DataFrame) -> dict[float, float]:
    """By dose the share of pairs whose answer the random exchange leaves as it is."""
    random = use[use.edit == "random"]
    return {float(dose): float((part.outcome == "target").mean()) for dose, part in random.groupby("dose")}


def decided_at(shares: Mapping[float, float]) -> float | None:
    """The whole exchange, or the largest smaller dose, at which the control still leaves enough as it is. Nothing of the own edit
    is looked at; doses above 1 go beyond the other run, and are for the curve."""
    return max((dose for dose, share in shares.items() if dose <= 1 and share > KEPT), default=None)


def use_findings(result: AnalysisResult, use: pd.DataFrame, families: Mapping[str, str]) -> list[Finding]:
    """Of the first target of each family: does the other run's answer follow what is exchanged, more than random directions?
    ``families``: by target, of those that pairs were asked for. A family without a pair, as of a model that solves none, has no
    item."""
    exchanged = set(use.target) if len(use) else set()
    out = []
    for family in dict.fromkeys(families.values()):
        targets = [target for target, of in families.items() if of == family]
        there = [target for target in targets if target in exchanged]
        none = Mean([])
        out.append(
            _used(result, family, there[0], use[use.target == there[0]]) if there
            else result.judge(f"probes.use-{family}", none, f"{targets[0]}: no pair could exchange it", none.number())
        )  # fmt: skip
    return out


def _used(result: AnalysisResult, family: str, target: str, use: pd.DataFrame) -> Finding:
    fit = eligible(use)
    shares = kept(fit)
    dose = decided_at(shares)
    at = min(shares, default=0.0) if dose is None else dose
    here = fit[fit.dose == at].set_index("problem")
    shown = {edit: here[here.edit == edit].donor_shown.astype(float) for edit in ("own", "random")}
    said = ", ".join(f"{share:.2f} at dose {dose:g}" for dose, share in shares.items())
    key, more = f"probes.use-{family}", Mean((shown["own"] - shown["random"]).astype(float), bounds=DIFFERENCE)
    unfit = None
    if use.problem.nunique() and not len(fit):
        unfit = f"the probe reads the exchanged tokens right in both runs in none of {use.problem.nunique()} pairs"
    elif shares and dose is None:
        unfit = f"any change of that size loses the answer: under the random one {said} keep it, more than {KEPT} must"
    elif dose is not None and dose < 1 and not more.interval()[0] > rules()[key].smallest:
        unfit = f"the control survives dose {dose:g} only: a part of an exchange can show that it is used, not that it is not"
    return result.judge(
        key, more,
        f"{target} at {use['name'].iloc[0]}: given what a least-squares probe reads of the other run, at the "
        f"{use.tokens.astype(float).mean():.0f} tokens where the labels differ, dose {at:g} (of {use.problem.nunique()} pairs "
        f"{fit.problem.nunique()} read right; the random exchange keeps the answer of {said or 'none'}), the video shows of the "
        "other run's answer more than under the random exchange, by",
        Mean(shown["random"].to_numpy(float), bounds=(0, 1)).number(), unfit,
    )  # fmt: skip
