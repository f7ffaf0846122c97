"""How often the intervals of driver/estimates.py cover the true value, and on which side they miss it: the tables of
docs/verdicts.md. Some minutes on one core."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats

from cos_interp.analyses.driver.estimates import DIFFERENCE, EFFECTS, Mean, PairedShares
from cos_interp.analyses.patching.findings import COLUMNS, held_out

TRIALS = 3000
Draw = Callable[[np.random.Generator, int], np.ndarray]
SHAPES: dict[str, tuple[Draw, float]] = {
    "normal": (lambda chance, n: chance.normal(1, 1, n), 1.0),
    "uniform": (lambda chance, n: chance.uniform(0, 1, n), 0.5),
    "exponential": (lambda chance, n: chance.exponential(1, n), 1.0),
    "lognormal": (lambda chance, n: chance.lognormal(0, 1, n), math.exp(0.5)),
    "binomial (3, .8) / 3": (lambda chance, n: chance.binomial(3, 0.8, n) / 3, 0.8),
}
GAINS: dict[str, tuple[Draw, float]] = {
    "gains: 1/3 in .30, -1 in .05, else 0": (lambda chance, n: chance.choice([1 / 3, -1, 0], n, p=[0.3, 0.05, 0.65]), 0.05),
    "gains: 1/4 in .40, -1 in .05, else 0": (lambda chance, n: chance.choice([1 / 4, -1, 0], n, p=[0.4, 0.05, 0.55]), 0.05),
    "effects: .95 near .58, .05 at -1": (
        lambda chance, n: np.where(chance.random(n) < 0.05, -1, 0.5789 + chance.uniform(-0.05, 0.05, n)), 0.95 * 0.5789 - 0.05,
    ),
}  # fmt: skip


def coverage(draw: Draw, true: float, n: int, normal: bool) -> float:
    """Share of samples whose 95 % interval holds the true mean; one without an interval (no variation) counts as a miss."""
    above, below = sides(lambda chance: Mean(draw(chance, n), normal), true)
    return 1 - above - below


def sides(estimate: Callable[[np.random.Generator], Mean], true: float, trials: int = TRIALS) -> tuple[float, float]:
    """Shares of samples whose interval lies wholly above and below the true value: were that the smallest effect of interest,
    these would be reproduced and refuted without cause. One without an interval counts as both halves of a miss."""
    chance, found = np.random.default_rng(0), np.zeros(2)
    for _ in range(trials):
        low, high = estimate(chance).interval()
        found += (0.5, 0.5) if math.isnan(low) else (low > true, high < true)
    above, below = found / trials
    return float(above), float(below)


def paired_worst(n: int, bound: float) -> tuple[float, float]:
    """The largest shares, over tables whose true difference is ``bound``, of samples falsely above and below; enumerated."""
    tables = np.array([t for t in itertools.product(range(n + 1), repeat=3) if sum(t) <= n])  # both, gained, lost
    tables = np.column_stack([tables, n - tables.sum(1)])
    ends = np.array([_interval(*table) for table in tables])
    worst = np.zeros(2)
    for lost, both in itertools.product((0, 0.01, 0.03, 0.08), np.arange(0, 1, 0.1)):
        truth = (both, bound + lost, lost, 1 - both - bound - 2 * lost)
        if truth[3] >= -1e-12:
            p = stats.multinomial.pmf(tables, n, np.clip(truth, 0, 1))
            worst = np.maximum(worst, [p[ends[:, 0] > bound].sum(), p[ends[:, 1] < bound].sum()])
    return float(worst[0]), float(worst[1])


def _interval(both: int, gained: int, lost: int, neither: int) -> tuple[float, float]:
    first = np.repeat([1, 1, 0, 0], [both, gained, lost, neither])
    second = np.repeat([1, 0, 1, 0], [both, gained, lost, neither])
    return PairedShares(first, second).interval()


def patched(cells: int, pairs: int = 12, true: float = 0.25) -> tuple[float, float]:
    """As :func:`sides`, of patching's number: in the best cell of the other half of the pairs, with all cells alike."""

    def estimate(chance: np.random.Generator) -> Mean:
        own = np.clip(chance.normal(true, 0.25, (pairs, cells)), -1, 1)
        rows = [
            dict.fromkeys(COLUMNS, 0.0) | {"pair": f"p{i}", "group": "g", "step": 0, "layer": cell, "own": own[i, cell]}
            for i in range(pairs) for cell in range(cells)
        ]  # fmt: skip
        kept = held_out(pd.DataFrame(rows))
        return Mean((kept.own - kept.control).to_numpy(float), bounds=EFFECTS)

    return sides(estimate, true, 1000)


def sample(draw: Draw, bounds: tuple[float, float] | None, n: int, chance: np.random.Generator) -> Mean:
    return Mean(draw(chance, n), bounds=bounds)


def shown(above: float, below: float) -> str:
    return f"{above:.3f} / {below:.3f}"


def main() -> None:
    """Print the tables, in Markdown."""
    print(f"{TRIALS} samples each; two standard errors are {2 * math.sqrt(0.05 * 0.95 / TRIALS):.3f}\n")
    print("| values | t, n = 8 | t, n = 12 | bootstrap-t, n = 12 | n = 20 | n = 40 |")
    print("|---|---|---|---|---|---|")
    for name, (draw, true) in SHAPES.items():
        cells = [coverage(draw, true, n, normal) for n, normal in ((8, True), (12, True), (12, False), (20, False), (40, False))]
        print(f"| {name} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    print("\n| wholly above / below the truth | n = 12 | n = 20 | n = 40 | n = 60 |\n|---|---|---|---|---|")
    for name, (draw, true) in {**SHAPES, **GAINS}.items():
        made = partial(sample, draw, DIFFERENCE if name in GAINS else None)
        each = [sides(partial(made, n), true) for n in (12, 20, 40, 60)]
        print(f"| {name} | " + " | ".join(shown(*one) for one in each) + " |")
    print("\n| Newcombe, worst of tables, above / below | n = 30 | n = 60 |\n|---|---|---|")
    for bound in (0.05, 0.1, 0.2, 0.3, 0.5):
        print(f"| a difference of {bound:g} | " + " | ".join(shown(*paired_worst(n, bound)) for n in (30, 60)) + " |")
    print("\n| patching, 12 pairs, above / below | 1 cell | 6 cells | 48 cells |\n|---|---|---|---|")
    print("| all cells at .25, normal | " + " | ".join(shown(*patched(cells)) for cells in (1, 6, 48)) + " |")


if __name__ == "__main__":
    main()
