"""What the places of an item's objects get in items whose objects stand elsewhere: a place may be looked at whatever is there."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.memory import MemoryFacts


def elsewhere(result: AnalysisResult, store: RunStore) -> pd.DataFrame:
    """``problem, layer, elsewhere``: of each item with known objects, over the other items of its task."""
    units = [unit for unit, facts in result.units_of(MemoryFacts).items() if "received" in facts.axes]
    tasks = result.rows.drop_duplicates("problem").set_index("problem").task
    out = []
    for _, part in pd.Series(units, dtype=object).groupby([tasks[unit] for unit in units], sort=False):
        held = [(tensors["received"].numpy(), tensors["followed"].numpy()) for tensors in map(store.tensors, part)]
        received, followed = map(np.stack, zip(*held, strict=True))
        got = in_others(received, followed)
        out += [(name, layer, value) for name, row in zip(part, got, strict=True) for layer, value in enumerate(row)]
    return pd.DataFrame(out, columns=["problem", "layer", "elsewhere"])


def in_others(received: np.ndarray, followed: np.ndarray) -> np.ndarray:
    """``[item, layer]``: the mean that an item's followed tokens get in the other items, of each token over those in which it is
    not followed. ``received [item, layer, row, col]``, ``followed`` bool ``[item, row, col]``. NaN where there are none.

    >>> received = np.array([[[[9.0, 1.0]]], [[[2.0, 9.0]]], [[[4.0, 5.0]]]])
    >>> in_others(received, np.array([[[True, False]], [[False, True]], [[False, True]]])).tolist()
    [[3.0], [1.0], [1.0]]
    """
    free = ~followed
    total, count = np.einsum("ilrc,irc->lrc", received, free), free.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / count  # of each place over the items in which it is free; a followed item is none of its own
    picked = [mean[:, own & (count > 0)] for own in followed]
    return np.stack([of.mean(1) if of.shape[1] else np.full(len(mean), np.nan) for of in picked])
