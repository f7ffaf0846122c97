"""Coarse to fine: what is looked at closely is where a coarse look found an effect, decided over all pairs at once, so that every
pair has the same places and their means are of the same pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd

Over = Literal["mean", "largest"]


def above(rows: pd.DataFrame, by: Sequence[str], least: float, over: Over = "mean") -> list[tuple[Any, ...]]:
    """The places whose ``effect`` over the pairs exceeds ``least``, the largest first, equal ones in the order of the rows.

    ``over``: the mean, or the largest in either direction of any pair, which effects of opposite signs do not cancel.

    >>> rows = pd.DataFrame({"at": ["a", "b", "a", "b"], "layer": [0, 0, 0, 0], "effect": [0.5, 0.3, -0.5, 0.3]})
    >>> above(rows, ["at", "layer"], 0.2), above(rows, ["at", "layer"], 0.2, "largest")
    ([('b', 0)], [('a', 0), ('b', 0)])
    """
    if rows.empty:
        return []
    effects = rows.effect.abs() if over == "largest" else rows.effect
    grouped = effects.groupby([rows[name] for name in by], sort=False, dropna=False)
    found = (grouped.max() if over == "largest" else grouped.mean()).sort_values(ascending=False, kind="stable")
    return [place for place, effect in found.items() if effect > least]
