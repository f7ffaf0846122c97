"""How well a gradient map agrees with exact cells: order, sign, and whether its largest are the largest. Pure of models.

Per pair, over the cells of a random sample; then over pairs. The map's largest cells are compared apart: they were not drawn at
random, so that they say what is found where one would look, and nothing of the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from cos_interp.analyses.driver.estimates import Mean, Statistic
from cos_interp.analyses.kit.grid import EVERYWHERE, SELF
from cos_interp.analyses.patching.gradient_map import BOTH, PLACE, SAMPLE, TOP

NAMED, ALL = "named tokens", "all tokens"
LARGEST = 0.25  # of the sample, which count as its largest
SHARES = (0.0, 1.0)
LIKE = (-1.0, 1.0)


def compared(rows: pd.DataFrame, noising: bool) -> pd.DataFrame:
    """One row a cell that was finished exactly: ``estimate``, the map's first-order change of the effect, ``change``, the exact
    one, ``chosen``, why it was finished, and ``tokens``, of which kind."""
    keys = ["pair", "donor", *PLACE]
    maps, exact = rows[rows.estimate.notna()], rows[rows.effect.notna()]
    both = maps.drop(columns=["effect", "outcome"]).merge(exact[[*keys, "effect", "outcome"]], on=keys)
    return both.assign(change=both.effect - float(noising), tokens=np.where(both.group == EVERYWHERE, ALL, NAMED))


def sampled(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells of the random sample."""
    return cells[cells.chosen.isin([SAMPLE, BOTH])]


def topmost(cells: pd.DataFrame) -> pd.DataFrame:
    """The map's largest cells."""
    return cells[cells.chosen.isin([TOP, BOTH])]


def order(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN where either has one value only."""
    if len(set(first)) < 2 or len(set(second)) < 2:
        return float("nan")
    return float(scipy.stats.spearmanr(first, second).statistic)


def signs(estimate: pd.Series, change: pd.Series) -> float:
    """The share of cells in which both have one sign, of those that change anything; NaN for none."""
    moved = change != 0
    return float((np.sign(estimate[moved]) == np.sign(change[moved])).mean()) if moved.any() else float("nan")


def recall(estimate: pd.Series, change: pd.Series) -> float:
    """Of the cells of the largest changes (in either direction) the share that the map has among its own largest of the same
    cells, as many. By chance it is :data:`LARGEST`."""
    count = max(1, round(LARGEST * len(change)))
    first, second = (set(values.abs().sort_values(ascending=False, kind="stable").index[:count]) for values in (estimate, change))
    return len(first & second) / count


def hits(top: pd.DataFrame, sample: pd.DataFrame) -> float:
    """The share of the map's largest cells whose exact change is among the largest of the sample's; NaN without a sample."""
    if sample.empty or top.empty:
        return float("nan")
    return float((top.change.abs() >= sample.change.abs().quantile(1 - LARGEST)).mean())


def by_pair(cells: pd.DataFrame) -> pd.DataFrame:
    """A row a pair, site and kind of tokens: how the map agrees with the exact cells of the sample. ``share``: Spearman of the
    trivial predictor, the share of the two runs' difference that lies in the tokens.

    Sites stand apart: where the cells of one are all small, knowing the site alone gives an order of both.
    """
    out = []
    keys = ["pair_kind", "site", "tokens", "pair"]
    for (kind, site, tokens, pair), at in cells[cells.donor != SELF].groupby(keys, sort=False):
        at, top = sampled(at), topmost(at)
        if at.empty:
            continue
        out.append({
            "pair_kind": kind, "site": site, "tokens": tokens, "pair": pair, "n": len(at), "top": len(top),
            "spearman": order(at.estimate, at.change), "share": order(at["share"], at.change),
            "sign": signs(at.estimate, at.change), "recall": recall(at.estimate, at.change),
            "hits": hits(top, at), "top_sign": signs(top.estimate, top.change),
            "estimated": float(top.estimate.abs().mean()), "found": float(top.change.abs().mean()),
        })  # fmt: skip
    return pd.DataFrame(out)


def over_pairs(each: pd.DataFrame) -> list[dict[str, Any]]:
    """A line a kind of pair, site and tokens: means over pairs with their intervals, and the numbers of pairs and cells."""
    out = []
    for (kind, site, tokens), at in each.groupby(["pair_kind", "site", "tokens"], sort=False):
        means = {name: Mean(at[name].to_numpy(float), bounds=LIKE).number() for name in ("spearman", "share")}
        means |= {name: Mean(at[name].to_numpy(float), bounds=SHARES).number() for name in ("sign", "recall", "hits", "top_sign")}
        sizes = {"estimated": float(at.estimated.mean()), "found": float(at.found.mean())}
        counts = {"pairs": len(at), "cells": int(at.n.sum()), "top": int(at.top.sum())}
        out.append({"pair_kind": kind, "site": site, "tokens": tokens, **means, **sizes, **counts})
    return out


def over_cells(cells: pd.DataFrame) -> Statistic:
    """Spearman over the sampled cells of one pair, with its interval over these cells (of other pairs it says nothing)."""
    at = sampled(cells)
    return Statistic(list(zip(at.estimate, at.change, strict=True)), lambda some: order(*zip(*some, strict=True)), resamples=400)
