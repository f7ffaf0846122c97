"""What was chosen on one half of the items is tested on the other: the best of many is large in pure noise, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd


def halves(items: pd.Series, kinds: pd.Series | None = None) -> pd.Series:
    """0 or 1 for each row: every second item, in the order in which they first come, of each of the ``kinds``.

    >>> halves(pd.Series(["a", "a", "b", "c"])).tolist()
    [0, 0, 1, 0]
    """
    each = pd.DataFrame({"item": items, "kind": 0 if kinds is None else kinds}).drop_duplicates()
    return items.map(dict(zip(each.item, each.groupby("kind").cumcount() % 2, strict=True)))


def choosing_half(rows: pd.DataFrame) -> set[str]:
    """Every second item of each task, by its name, from the first on. Columns ``task, problem``."""
    ordered = rows[["task", "problem"]].sort_values("problem", kind="stable")
    return set(ordered.problem[halves(ordered.problem, ordered.task) == 0])


def chosen(rows: pd.DataFrame, value: str, along: Sequence[str] = ("layer", "step")) -> tuple[tuple[int, ...], pd.DataFrame]:
    """The place with the largest mean of ``value`` over items on one half of them, and the other half's rows there.

    Columns ``task, problem, value`` and those of ``along``. Without a half that has values: places of -1 and no rows.
    """
    names: list[Any] = list(along)
    choosing = choosing_half(rows)
    each = rows[rows.problem.isin(choosing)].groupby([*names, "problem"])[value].mean()
    means = each.groupby(names).mean().fillna(-np.inf)
    if means.empty:
        return (-1,) * len(names), rows.iloc[:0]
    best = means.idxmax()
    place = tuple(int(n) for n in (best if isinstance(best, tuple) else (best,)))
    there = (rows[names] == list(place)).all(axis=1)
    return place, rows[there & ~rows.problem.isin(choosing)]
