"""How often the intervals of driver/estimates.py cover the true value: the table of docs/verdicts.md. A minute on one core."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from cos_interp.analyses.driver.estimates import Mean

TRIALS = 3000
Draw = Callable[[np.random.Generator, int], np.ndarray]
SHAPES: dict[str, tuple[Draw, float]] = {
    "normal": (lambda chance, n: chance.normal(1, 1, n), 1.0),
    "uniform": (lambda chance, n: chance.uniform(0, 1, n), 0.5),
    "exponential": (lambda chance, n: chance.exponential(1, n), 1.0),
    "lognormal": (lambda chance, n: chance.lognormal(0, 1, n), math.exp(0.5)),
    "thirds": (lambda chance, n: chance.binomial(3, 0.8, n) / 3, 0.8),
}


def coverage(draw: Draw, true: float, n: int, normal: bool) -> float:
    """Share of samples whose 95 % interval holds the true mean; one without an interval (no variation) counts as a miss."""
    chance, hits = np.random.default_rng(0), 0
    for _ in range(TRIALS):
        low, high = Mean(draw(chance, n), normal).interval()
        hits += low <= true <= high
    return hits / TRIALS


def main() -> None:
    """Print the table, in Markdown."""
    print(f"{TRIALS} samples each; two standard errors are {2 * math.sqrt(0.05 * 0.95 / TRIALS):.3f}\n")
    print("| values | t, n = 8 | t, n = 12 | bootstrap-t, n = 12 | n = 20 | n = 40 |")
    print("|---|---|---|---|---|---|")
    for name, (draw, true) in SHAPES.items():
        cells = [coverage(draw, true, n, normal) for n, normal in ((8, True), (12, True), (12, False), (20, False), (40, False))]
        print(f"| {name} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")


if __name__ == "__main__":
    main()
