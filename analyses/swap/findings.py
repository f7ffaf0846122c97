"""What the rules say of swaps: whose answer, at which depth, in which tokens; a random item's tokens in the same cell taken off.

The rules read the first step, where the paper swaps, with the output of a block; what lasts longer is a variant.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import EFFECT, EFFECTS, Mean, PairedShares, Share
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.rules import rules
from cos_interp.analyses.driver.statistics import effect
from cos_interp.analyses.swap import WHEN, SwapConfig

MOST = (-4.0, 4.0)  # bounds of a difference of two differences of effects
MIDDLE = 0.5  # relative depth of the paper's layer 20 of 40
NEAR = 0.1  # a layer within this of the middle stands for it
PAIR, RANDOM = "pair", "random item"
LASTING = {"single": "swap.flip", "from": "swap.flip-from", "all": "swap.flip-all"}
OBJECT = {"single": "swap.object", "all": "swap.object-all"}
DEPTH = {"delta": "swap.depth", "block": "swap.depth-block"}


def findings(result: AnalysisResult, rows: pd.DataFrame) -> list[Finding]:
    """The primary rules, and the variants that were measured. Flips need a verifier, the object's tokens a scene. Without a pair,
    as of a model that solves none, what the settings ask for, of no item."""
    if rows.empty:
        return [result.judge(key, Mean([]), "no pair could be swapped", Mean([]).number()) for key in asked(result.config)]
    spans = [span for span in LASTING if span == "single" or (rows.span == span).any()]
    out = [_flip(result, rows, span) for span in spans] if rows.flipped.notna().any() else []
    out += [_depth(result, rows, variant) for variant in DEPTH if variant == "delta" or (rows.variant == variant).any()]
    if {"object", "random"} <= set(rows.group):
        out += [_object(result, rows, span) for span in spans if span in OBJECT]
    return out


def asked(config: SwapConfig) -> list[str]:
    """The keys of the rules that settings ask for."""
    spans = [span for span in LASTING if span == "single" or span in config.spans]
    flips = [LASTING[span] for span in spans] if config.scored or not config.own else []
    depths = [key for variant, key in DEPTH.items() if variant == "delta" or variant in config.variants]
    objects = [OBJECT[span] for span in spans if span in OBJECT] if {"object", "random"} <= set(config.tokens) else []
    return [*flips, *depths, *objects]


def at_place(rows: pd.DataFrame, span: str, variant: str) -> pd.DataFrame:
    """Swaps of one kind that begin at the first step; those from a step on at the first such step, which is a later one. Their
    relative effects within what their steps carry, in either direction."""
    part = rows[(rows.span == span) & (rows.variant == variant) & rows.donor.isin([PAIR, RANDOM])]
    part = part[part.step == (part.step.min() if span == "from" else 0)]
    return part.assign(relative=effect(part.relative))


def missing(rows: pd.DataFrame) -> str | None:
    """Why the swaps at a place cannot be judged: they were not made, changed nothing, or have nothing beside them."""
    if rows.empty:
        return "the swap that the rule reads (step 0, the block's output or its update) was not made"
    if not (rows[rows.donor == PAIR].effect.abs() > 0).any():
        return "the donor's tokens changed nothing"
    return None if RANDOM in set(rows.donor) else "no random item's tokens in the same cells"


def no_room(rows: pd.DataFrame, span: str, smallest: float, found: Mean) -> str | None:
    """Why that a part of a swap does not do as much as is asked for says nothing: the whole of it does less, or was not made.
    None where the part does it, by what is ``found``. The last block's output in all tokens is the donor's velocity itself;
    what the run does not keep of that, no other swap at these steps gives."""
    whole = at_place(rows, span, "block")
    whole = whole[(whole.group == "all") & (whole.donor == PAIR) & (whole.layer > 0)]
    last = whole[np.isclose(whole.depth * (whole.layer + 1), whole.layer)]  # of a relative depth that only the last block has
    most = Mean(last.set_index("problem").relative, bounds=EFFECT)
    if found.interval()[0] > smallest or most.interval()[1] >= smallest:
        return None
    if most.n == 0:
        return f"whether {smallest:g} is there to find is not known without the last block's output in all tokens (--layers)"
    return (
        f"the last block's output in all tokens does {most.number()} of what these steps carry: {smallest:g} is not there to find"
    )


def by_donor(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """Mean of a column by pair (rows) and donor (columns ``pair``, ``random item``), of the pairs that have both."""
    table = rows.assign(value=rows[value].astype(float)).pivot_table("value", "problem", "donor")
    return table.reindex(columns=[PAIR, RANDOM]).dropna()


def difference(rows: pd.DataFrame, high: pd.Series, low: pd.Series) -> pd.DataFrame:
    """By pair and donor: relative effect where ``high`` minus where ``low``, each a mean over layers."""
    return (by_donor(rows[high], "relative") - by_donor(rows[low], "relative")).dropna()


def middle_layer(rows: pd.DataFrame) -> int:
    """The measured layer that is nearest to the middle of the model; fixed beforehand, not the best one."""
    depths = rows.groupby("layer").depth.first()
    return int((depths - MIDDLE).abs().idxmin())


def when(rows: pd.DataFrame) -> str:
    """The place of rows in words, with the share of the path that the swapped steps carry."""
    if rows.empty:
        return "at step 0"
    first = rows.iloc[0]
    return f"{WHEN[first.span].format(step=first.step)} ({first.carried:.0%} of the path that is left)"


def _flip(result: AnalysisResult, rows: pd.DataFrame, span: str) -> Finding:
    at = at_place(rows, span, "block")
    at = at[(at.group == "all") & at.flipped.notna()]
    why, said = missing(at), "tokens of the middle layer"
    if len(at):
        layer = middle_layer(at)
        best = by_layer(at).max()
        at = at[at.layer == layer]
        depth = float(at.depth.iloc[0])
        if abs(depth - MIDDLE) > NEAR:
            why = f"layer {layer} (relative depth {depth:.2f}) is not the middle one"
        said = f"tokens of layer {layer} (relative depth {depth:.2f}) {when(at)}; highest share of any layer {best:.2f}"
    flips = by_donor(at, "flipped")
    return result.judge(
        LASTING[span], PairedShares(flips[PAIR], flips[RANDOM]),
        f"{said}; the donor's answer in {Share(flips[PAIR]).number()}, with a random item's tokens in "
        f"{Share(flips[RANDOM]).number()}; difference",
        Share(flips[RANDOM]).number(), why,
    )  # fmt: skip


def by_layer(rows: pd.DataFrame) -> pd.Series:
    """Share of pairs that give the donor's answer, by layer."""
    return rows[rows.donor == PAIR].groupby("layer").flipped.apply(lambda flipped: flipped.astype(float).mean())


def _depth(result: AnalysisResult, rows: pd.DataFrame, variant: str) -> Finding:
    """Do the layers from the middle on carry more of the answer than those before?"""
    at = at_place(rows, "single", variant)
    at = at[at.group == "all"]
    late = at.depth >= MIDDLE
    gains = difference(at, late, ~late)
    halves = "layers of both halves must be swapped" if late.all() or not late.any() else None
    more = Mean(gains[PAIR] - gains[RANDOM], bounds=MOST)
    why = missing(at) or halves or no_room(rows, "single", rules()[DEPTH[variant]].smallest, more)
    what = "updates" if variant == "delta" else "outputs"
    return result.judge(
        DEPTH[variant], more,
        f"{what} of blocks {when(at)}: effect in the second half of the layers minus that in the first, over the step's share, "
        f"{Mean(gains[PAIR], bounds=EFFECTS).number()}; difference to a random item's",
        Mean(gains[RANDOM], bounds=EFFECTS).number(), why,
    )  # fmt: skip


def _object(result: AnalysisResult, rows: pd.DataFrame, span: str) -> Finding:
    at = at_place(rows, span, "block")
    at = at[at.group != "all"]
    more = difference(at, at.group == "object", at.group == "random")
    beyond = Mean(more[PAIR] - more[RANDOM], bounds=MOST)
    return result.judge(
        OBJECT[span], beyond,
        f"the object's tokens {when(at)}, mean over layers: effect over the swapped steps' share minus that of as many others "
        f"{Mean(more[PAIR], bounds=EFFECTS).number()}; difference to a random item's",
        Mean(more[RANDOM], bounds=EFFECTS).number(), missing(at) or no_room(rows, span, rules()[OBJECT[span]].smallest, beyond),
    )  # fmt: skip
