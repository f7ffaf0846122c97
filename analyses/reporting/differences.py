"""How much two runs differ: item by item where both have the same items, else as two samples. Pure maths."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from cos_interp.analyses.driver.estimates import Estimate, Mean, PairedShares
from cos_interp.analyses.driver.findings import Number

LEAST = 2  # shared items, from which on a difference is taken item by item

Items = Mapping[str, float]


@dataclass(frozen=True)
class Difference:
    """What the second run has more than the first. ``pairs``: how many items both have; 0 where the runs are two samples, of
    ``sizes`` items each. ``enough``: whether a side can be told; of outcomes six items must differ, as for a verdict."""

    number: Number
    pairs: int
    sizes: tuple[int, int]
    enough: bool = True

    @property
    def how(self) -> str:
        """How it was taken, in words."""
        if self.pairs:
            return f"paired over {self.pairs} items"
        return f"unpaired, {self.sizes[0]} and {self.sizes[1]} items"

    @property
    def side(self) -> str:
        """What the interval leaves of it, in words."""
        low, high = self.number.low, self.number.high
        if not (math.isfinite(low) and math.isfinite(high)):
            if self.number.kind != "constant" or not self.pairs:
                return "no interval"
            return "no difference in any item" if self.number.value == 0 else "the same in all items"
        return "no difference shown" if low <= 0 <= high or not self.enough else "more" if low > 0 else "less"

    def __str__(self) -> str:
        low, high = self.number.low, self.number.high
        interval = f" [{low:.2f}, {high:.2f}]" if math.isfinite(low) and math.isfinite(high) else ""
        return f"{self.number.value:+.2f}{interval} ({self.how})"


def between(
    first: Number, second: Number, own: Items, others: Items, same: Callable[[str], bool] = lambda item: True
) -> Difference:  # fmt: skip
    """The second minus the first. ``own``, ``others``: their items; ``same``: whether an item of this name is the same in both.

    Without at least ``LEAST`` shared items the two numbers are held against each other as those of two samples.
    """
    shared = [item for item in own if item in others and same(item) and not math.isnan(own[item] + others[item])]
    sizes = (first.n, second.n)
    if len(shared) >= LEAST:
        found = paired([own[item] for item in shared], [others[item] for item in shared])
        return Difference(found.number(), len(shared), sizes, found.lacking_to_reproduce() is None)
    return Difference(unpaired(first, second), 0, sizes)


def paired(first: list[float], second: list[float]) -> Estimate:
    """Mean of ``second - first`` over items: Newcombe's interval where both are 0 or 1; bootstrap-t from twelve items on; else
    Student's t, which supposes that differences are roughly normal."""
    a, b = np.array(first, float), np.array(second, float)
    if np.isin(np.concatenate([a, b]), (0, 1)).all():
        return PairedShares(b, a)
    skewed = Mean(b - a)
    enough = skewed.n >= skewed.least and np.isfinite(skewed.interval()).all()
    return skewed if enough or not skewed.varies() else Mean(b - a, normal=True)


def unpaired(first: Number, second: Number) -> Number:
    """``second - first`` of two samples, from their own intervals: the method of variance estimates recovery (Zou & Donner 2008),
    which for shares is Newcombe's of two samples. No interval where one of the two has none."""
    value = second.value - first.value
    below = math.hypot(second.value - second.low, first.high - first.value)
    above = math.hypot(second.high - second.value, first.value - first.low)
    bounded = math.isfinite(below) and math.isfinite(above) and "constant" not in (first.kind, second.kind)
    low, high = (value - below, value + above) if bounded else (math.nan, math.nan)
    return Number(value, low, high, min(first.n, second.n), "unpaired")
