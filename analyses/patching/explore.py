"""All numbers of each cell of the grid: effect, the random donor's, their difference with its interval, readings, videos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from cos_interp.analyses.driver.estimates import EFFECTS, Mean
from cos_interp.analyses.driver.pages import Reel
from cos_interp.analyses.patching.summary import over_pairs
from cos_interp.reports.drawing import REELS, VALUE

POINT = ["group", "step", "layer"]
MAP = "map"  # the axis of a figure's panels, where they are no axis of the grid
OWN, RANDOM = "the pair's donor", "a random item"


def cells(at: pd.DataFrame, random: pd.DataFrame, reels: Sequence[Reel]) -> pd.DataFrame:
    """A row a cell. ``at``: the pair's donor; ``random``: a random item's tokens. The interval is that of the paired difference,
    or of the effect where there is no random donor."""
    beside = dict(iter(random.groupby(POINT)))
    return pd.DataFrame([_cell(mine, beside.get(point), reels) for point, mine in at.groupby(POINT, sort=False)])


def _cell(mine: pd.DataFrame, other: pd.DataFrame | None, reels: Sequence[Reel]) -> dict[str, Any]:
    effect, first = over_pairs(mine, "effect"), mine.iloc[0]
    where = {"tokens": first.group, "step": int(first.step), "layer": int(first.layer)}
    difference, control = effect, None
    if other is not None:
        own, others = (part.groupby("pair").effect.mean() for part in (mine, other))
        both = own.to_frame("own").join(others.rename("other"), how="inner")
        difference, control = Mean((both.own - both.other).to_numpy(float), bounds=EFFECTS).number(), float(both.other.mean())
    read = Counter(mine.outcome.dropna())
    return {
        **where, VALUE: effect.value, "random donor": control, "difference": None if control is None else difference.value,
        **difference.ends,
        "share of tokens": float(mine.share.astype(float).mean()),
        "reads": ", ".join(f"{name} {count}" for name, count in read.items()) or None, "sigma": float(first.sigma),
        REELS: [reel.name for reel in reels if any(row.at == {**where, "site": first.site} for row in reel.rows)],
    }  # fmt: skip


def by_donor(own: pd.DataFrame, random: pd.DataFrame) -> pd.DataFrame:
    """Two panels of cells: the pair's donor with all numbers, and a random item's."""
    mean = random.groupby(POINT, sort=False).effect.mean().reset_index()
    other = pd.DataFrame({"tokens": mean.group, "step": mean.step, "layer": mean.layer, VALUE: mean.effect.astype(float)})
    both = pd.concat([own.assign(**{MAP: OWN}), other.assign(**{MAP: RANDOM})], ignore_index=True)
    both[REELS] = [seen if isinstance(seen, list) else [] for seen in both[REELS]]
    return both
