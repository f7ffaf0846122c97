"""What is estimated over items, and how sure one may be: each kind of outcome with the interval that covers it.

An :class:`Estimate` keeps its sample, so that the interval can be had at any level: the p-value of a finding is the level at
which the printed interval would just touch the smallest effect of interest. ``tests/analyses/test_estimates.py`` enumerates or
simulates the coverage of every kind.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from scipy import stats

from cos_interp.analyses.driver.findings import NO_ITEM, Number
from cos_interp.tasks.tally import share_interval

LEVEL = 0.95
RESAMPLES = 4000
DIFFERENCE = (-1.0, 1.0)  # the bounds of a difference of two shares
EFFECT = (-1.0, 1.0)  # the bounds of an effect of a patch, see statistics.effect
EFFECTS = (-2.0, 2.0)  # the bounds of a difference of two of them
NEAR = 1e-9  # values of one outcome that were computed in another order
POWER = float(stats.norm.ppf(0.8))


class Estimate(ABC):
    """A value over ``n`` items. ``least``: below so many items its interval is not trusted to decide. ``named``: what each item
    has, by its name, where a column was given that is indexed by items: with it two runs are compared item by item."""

    least: ClassVar[int]
    kind: ClassVar[str]
    named: Mapping[str, float] = MappingProxyType({})

    n: int
    value: float

    @abstractmethod
    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Two-sided bounds; NaN where there is none."""

    def varies(self) -> bool:
        """Whether the items differ at all, without which a mean has no interval."""
        return True

    def number(self) -> Number:
        """Value and 95 % interval as data."""
        low, high = self.interval()
        return Number(self.value, low, high, self.n, self.kind if self.varies() else "constant")

    def lacking(self) -> str | None:
        """Why nothing can be decided, in words; None when it can."""
        if self.n == 0:
            return NO_ITEM
        if self.n < self.least:
            return f"{self.n} of at least {self.least} items"
        if self.varies() or not math.isnan(self.interval()[0]):
            return None
        return f"all {self.n} items have the same value"

    def lacking_to_reproduce(self) -> str | None:
        """Why it cannot count as reproduced, though it may be refuted; None when it can."""
        return None

    def beside(self) -> str:
        """Another test of the same, in words; "" where there is none."""
        return ""

    @property
    def finest(self) -> float:
        """The smallest p that can be told: of resamples none is below one of so many and the sample itself."""
        return 0.0

    def p(self, threshold: float) -> float:
        """One-sided p against ``value <= threshold``: the interval turned around, its lower bound at ``threshold``."""
        if math.isnan(self.interval()[0]):
            return math.nan
        above = lambda p: self.interval(1 - 2 * p)[0] > threshold
        low, high = 1e-9, 0.5
        if not above(high - 1e-9):  # the value itself is not above it
            return 1.0 if self.value < threshold else 0.5
        for _ in range(30):
            middle = math.sqrt(low * high)
            low, high = (low, middle) if above(middle) else (middle, high)
        return max(high, self.finest)

    def deviation(self) -> float:
        """The standard error that the interval's width stands for."""
        low, high = self.interval()
        return (high - low) / (2 * stats.norm.ppf(0.5 + LEVEL / 2))

    def smallest(self) -> float:
        """The distance from the threshold that so many items find at 80 % power."""
        return float((stats.norm.ppf(0.5 + LEVEL / 2) + POWER) * self.deviation())

    def needed(self, threshold: float) -> int | None:
        """Items that would decide at 80 % power, were the true value this one: more than these where they do not. None where no
        number would."""
        distance, smallest = abs(self.value - threshold), self.smallest()
        if not (math.isfinite(smallest) and distance > 0):
            return None
        low, high = self.interval()
        more = self.n + 1 if low <= threshold <= high else 0
        return max(self.least, more, math.ceil(self.n * (smallest / distance) ** 2))


class Share(Estimate):
    """The share of items that are so: the exact interval (Clopper & Pearson 1934), which covers at least its level everywhere."""

    least, kind = 20, "share"

    def __init__(self, items: Sequence[Any] | np.ndarray):
        known = _outcomes(_known(items))
        self.successes, self.n = int(known.sum()), len(known)
        self.value = self.successes / self.n if self.n else math.nan
        self.named = _named(items)

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        return share_interval(self.successes, self.n, level)


class PairedShares(Estimate):
    """How much more often the first holds than the second on the same items: Newcombe's hybrid score interval (1998, method 10).

    Beside it stands the exact McNemar test. Reproducing needs six items on which the two differ: with five, all of one sign, its
    two-sided p is .0625.
    """

    least, kind = 30, "paired shares"
    discordant_least: ClassVar[int] = 6

    def __init__(self, first: Sequence[Any] | np.ndarray, second: Sequence[Any] | np.ndarray):
        pairs = np.column_stack([np.asarray(first, float), np.asarray(second, float)])
        pairs = _outcomes(pairs[~np.isnan(pairs).any(1)])
        a, b = pairs[:, 0] > 0.5, pairs[:, 1] > 0.5
        self.both, self.gained, self.lost = int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum())
        self.n = len(pairs)
        self.value = (self.gained - self.lost) / self.n if self.n else math.nan
        self.named = _named(first, np.asarray(first, float) - np.asarray(second, float))

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        if self.n == 0:
            return math.nan, math.nan
        first, second = self.both + self.gained, self.both + self.lost
        (l1, u1), (l2, u2) = (_wilson(count, self.n, level) for count in (first, second))
        p1, p2 = first / self.n, second / self.n
        phi = self._correlation(first, second)
        below = (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2
        above = (p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2
        return self.value - math.sqrt(max(below, 0.0)), self.value + math.sqrt(max(above, 0.0))

    def _correlation(self, first: int, second: int) -> float:
        """phi of the two outcomes, with Newcombe's continuity correction where it is positive."""
        neither = self.n - self.both - self.gained - self.lost
        margins = first * (self.n - first) * second * (self.n - second)
        if margins == 0:
            return 0.0
        product = self.both * neither - self.gained * self.lost
        corrected = max(product - self.n / 2, 0) if product > 0 else product
        return corrected / math.sqrt(margins)

    @property
    def mcnemar(self) -> float:
        """Two-sided p of the exact McNemar test; 1 where the two never differ."""
        discordant = self.gained + self.lost
        return float(stats.binomtest(self.gained, discordant).pvalue) if discordant else 1.0

    def beside(self) -> str:
        p = f"McNemar's exact p = {self.mcnemar:.2g}"
        return f"of the items on which the two differ {self.gained} are for it and {self.lost} against, {p}" if self.n else ""

    def lacking_to_reproduce(self) -> str | None:
        discordant = self.gained + self.lost
        return None if discordant >= self.discordant_least else f"the two differ on {discordant} items, six are needed"


class Mean(Estimate):
    """A mean over items. Skewed values (the default, since an outcome may be): bootstrap-t (Efron 1982), from 12 items on; of
    fewer, which decide nothing, Student's t, for their resamples are too few. ``normal=True`` for values known to be roughly
    so: Student's t, from 8 items on.

    Where all items but ``FEW`` have one value, resamples without variation are too many for either. ``bounds``, between which the
    quantity lies by its definition (a share, a difference of shares), give an interval then: see :meth:`_counted`. A quantity
    without bounds, as an effect is, has none where no item differs, and open ends where few do. ValueError for values outside
    the bounds.
    """

    FEW: ClassVar[int] = 3  # (1 - 3 / n) ** n, the share of resamples without these items, is above .025 for n >= 12

    def __init__(self, items: Sequence[float] | np.ndarray, normal: bool = False, bounds: tuple[float, float] | None = None):
        self.items, self.normal, self.bounds, self.named = _known(items), normal, bounds, _named(items)
        self.n = len(self.items)
        self.value = float(self.items.mean()) if self.n else math.nan
        if bounds is not None and self.n and not (bounds[0] - NEAR <= self.items.min() <= self.items.max() <= bounds[1] + NEAR):
            raise ValueError(f"values from {self.items.min():g} to {self.items.max():g} do not lie within {bounds}")

    def lacking(self) -> str | None:
        endless = int(np.isinf(self.items).sum())
        return f"{endless} of {self.n} items have no finite value" if endless else super().lacking()

    @property
    def least(self) -> int:  # type: ignore[override]
        return 8 if self.normal else 12

    def varies(self) -> bool:
        return self.n < 2 or bool(self._error > self._rounding)

    @property
    def kind(self) -> str:  # type: ignore[override]
        """How its interval is made, by the branches of :meth:`interval`."""
        if self.n > 1 and self._few_differ:
            return "counted mean"
        return "mean" if self.n < 2 or self._resampled else "normal mean"

    @property
    def _rounding(self) -> float:
        """What equal values may differ by after a sum: thirds are none in binary."""
        return 1e-12 * max(1.0, abs(self.value))

    @property
    def _error(self) -> float:
        return float(self.items.std(ddof=1) / math.sqrt(self.n)) if self.n > 1 else math.nan

    @property
    def finest(self) -> float:
        return 1 / (RESAMPLES + 1) if self._resampled else 0.0

    @property
    def _few_differ(self) -> bool:
        return self.bounds is not None and self.n - self._common[1] <= self.FEW

    @property
    def _resampled(self) -> bool:
        return not (self.normal or self.n < self.least or self._few_differ)

    @cached_property
    def _studentized(self) -> np.ndarray:
        """``(mean* - mean) / error*`` of resamples; a resample without variation stands for the largest of them."""
        chance = np.random.default_rng(0)
        drawn = self.items[chance.integers(0, self.n, (RESAMPLES, self.n))]
        error = drawn.std(1, ddof=1) / math.sqrt(self.n)
        moved = drawn.mean(1) - self.value
        with np.errstate(divide="ignore", invalid="ignore"):
            without = np.where(np.abs(moved) <= self._rounding, 0.0, np.sign(moved) * np.inf)
            return np.where(error > self._rounding, moved / error, without)

    @cached_property
    def _common(self) -> tuple[float, int]:
        """The most frequent value, and how many items have it."""
        rounded = np.round(self.items / NEAR) * NEAR
        values, counts = np.unique(rounded, return_counts=True)
        return float(values[counts.argmax()]), int(counts.max())

    def _counted(self, bounds: tuple[float, float], level: float) -> tuple[float, float]:
        """Bounds of the mean from how many items reach the most frequent value: as many of all as the exact interval of their
        share leaves open may lie at the end of the range. For values of 0 and 1 it is that interval."""
        common, _ = self._common
        reach, exceed = (int((sign * (self.items - common) >= -NEAR).sum()) for sign in (1, -1))
        up, down = (share_interval(count, self.n, level)[0] for count in (reach, exceed))
        return bounds[0] + (common - bounds[0]) * up, bounds[1] - (bounds[1] - common) * down

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        if self.n < 2:
            return math.nan, math.nan
        if self.bounds is not None and self._few_differ:
            return self._counted(self.bounds, level)
        if not self.varies():
            return math.nan, math.nan
        if not self._resampled:
            low, high = stats.t.interval(level, self.n - 1, self.value, self._error)
            return self._within(low, high)
        below, above = np.quantile(self._studentized, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
        return self._within(self.value - above * self._error, self.value - below * self._error)

    def _within(self, low: float, high: float) -> tuple[float, float]:
        """An interval, no end of which lies where the quantity cannot."""
        least, most = self.bounds or (-math.inf, math.inf)
        return max(float(low), least), min(float(high), most)


class Statistic(Estimate):
    """Any number of a list of items (a slope, an AUC): the bias-corrected and accelerated bootstrap (Efron 1987), from 20 on.

    Resamples on which it is undefined are left out.
    """

    least, kind = 20, "statistic"

    def __init__(self, items: Sequence[Any], function: Callable[[Sequence[Any]], float], resamples: int = 1000):
        self.items, self.function, self.n = list(items), function, len(items)
        self.resamples = resamples
        self.value = float(function(self.items)) if self.n else math.nan

    @property
    def finest(self) -> float:
        return 1 / (self.resamples + 1)

    def varies(self) -> bool:
        """Whether resamples differ so often that both ends of the interval are apart."""
        if self.n < 2 or self._undefined:
            return True
        low, high = self._ends(LEVEL)
        return low < high

    def lacking(self) -> str | None:
        if self.n >= self.least and self._undefined:
            return f"on {self.resamples - len(self._drawn)} of {self.resamples} resamples of the {self.n} items it has no value"
        return super().lacking()

    @property
    def _undefined(self) -> bool:
        return math.isnan(self.value) or len(self._drawn) < self.resamples / 2

    @cached_property
    def _drawn(self) -> np.ndarray:
        chance = np.random.default_rng(0)
        places = chance.integers(0, self.n, (self.resamples, self.n))
        drawn = np.array([self.function([self.items[i] for i in row]) for row in places], float)
        return np.sort(drawn[~np.isnan(drawn)])

    @cached_property
    def _corrections(self) -> tuple[float, float]:
        """Bias ``z0`` and acceleration ``a``, of the jackknife."""
        less = (self._drawn < self.value).mean() + 0.5 * (self._drawn == self.value).mean()
        left_out = np.array([self.function([*self.items[:i], *self.items[i + 1 :]]) for i in range(self.n)], float)
        away = np.nanmean(left_out) - left_out
        away = away[~np.isnan(away)]
        scale = 6 * (away**2).sum() ** 1.5
        return float(stats.norm.ppf(np.clip(less, 1e-6, 1 - 1e-6))), float((away**3).sum() / scale) if scale > 0 else 0.0

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        if self.n < 2 or self._undefined or not self.varies():
            return math.nan, math.nan
        return self._ends(level)

    def _ends(self, level: float) -> tuple[float, float]:
        bias, acceleration = self._corrections
        z = stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
        at = stats.norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        low, high = np.quantile(self._drawn, at)
        return float(low), float(high)


def _outcomes(values: np.ndarray) -> np.ndarray:
    """The values; ValueError where one is neither 0 nor 1, of which there is no share."""
    if not (whole := np.isin(values, (0, 1))).all():
        raise ValueError(f"a share is of outcomes, 0 or 1; found {values[~whole].flat[0]:g}: take the mean of such values")
    return values


def _known(items: Sequence[Any] | np.ndarray) -> np.ndarray:
    """As floats, without the items that have no value."""
    values = np.asarray(items, float)
    return values[~np.isnan(values)]


def _named(items: Any, values: np.ndarray | None = None) -> dict[str, float]:
    """The values by the names of a column's index (texts, or several); none where it has no such names, or one twice."""
    index = getattr(items, "index", None)
    if index is None or callable(index):  # a list's index is a method
        return {}
    names = [" ".join(map(str, name)) if isinstance(name, tuple) else name for name in index]
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        return {}
    held = np.asarray(items, float) if values is None else values
    return {name: float(value) for name, value in zip(names, held, strict=True) if not math.isnan(value)}


@lru_cache(maxsize=4096)
def _wilson(count: int, n: int, level: float) -> tuple[float, float]:
    found = stats.binomtest(count, n).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)
