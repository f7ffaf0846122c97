"""Variants of one thing timed beside each other: CPU time of this process, in one process, in another order each round."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timed:
    """CPU milliseconds of one variant (median), and its ratio to the first one: median, first and third quartile over rounds."""

    ms: float
    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.ratio:.2f} [{self.low:.2f}, {self.high:.2f}], {self.ms:.1f} ms"


def paired(cases: Mapping[str, Callable[[], object]], rounds: int, warm: int = 1) -> dict[str, Timed]:
    """Time all cases in every round; ratios are to the first case in the same round."""
    for _ in range(warm):
        for work in cases.values():
            work()
    spent: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        for name in np.random.default_rng(number).permutation(list(cases)):
            began = time.process_time()
            cases[name]()
            spent[name].append(time.process_time() - began)
    base = np.array(spent[next(iter(cases))])
    return {name: _timed(np.array(each), np.array(each) / base) for name, each in spent.items()}


def _timed(seconds: np.ndarray, ratios: np.ndarray) -> Timed:
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return Timed(1000 * float(np.median(seconds)), float(middle), float(low), float(high))
