"""Where a number of steps may lie along the way from noise to video. Pure maths.

The way is the scheduler's own: position 0 is its first noise level, 1 its last one above none, as its own run of very many steps
goes from one to the other. An allocation is the positions of the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

OWN = "own"  # the scheduler's own levels


def favoured(steps: int, dense: Sequence[bool], density: float) -> tuple[float, ...]:
    """Positions of steps that lie ``density`` times as close in the favoured ones of equally long parts of the way, each
    carrying the same share of what is left: step k of n lies where k / n of the weight is behind it.

    >>> favoured(4, (False, False), 4), [round(at, 3) for at in favoured(4, (True, False), 3)]
    ((0.0, 0.25, 0.5, 0.75), [0.0, 0.167, 0.333, 0.5])
    """
    weights = np.where(dense, density, 1.0)
    behind = np.concatenate([[0.0], np.cumsum(weights) / weights.sum()])
    ends = np.linspace(0, 1, len(weights) + 1)
    return tuple(float(at) for at in np.interp(np.arange(steps) / steps, behind, ends))


def candidates(steps: int, bands: int, density: float) -> dict[str, tuple[float, ...]]:
    """All ways to favour some of so many parts, by name: ``even`` favours none, ``dense 1 3`` the first and the third.

    >>> list(candidates(4, 2, 4.0))
    ['even', 'dense 2', 'dense 1']
    """
    some = [dense for dense in product((False, True), repeat=bands) if not all(dense)]
    named = lambda dense: " ".join(["dense", *(str(n) for n, one in enumerate(dense, 1) if one)]) if any(dense) else "even"
    return {named(dense): favoured(steps, dense, density) for dense in some}


def drawn(steps: int, seed: int) -> tuple[float, ...]:
    """Positions of steps at random: the first at 0, the others drawn evenly."""
    return (0.0, *np.sort(np.random.default_rng(seed).uniform(0, 1, steps - 1)).tolist())


def levels(positions: Sequence[float], fine: Sequence[float]) -> list[float]:
    """Noise levels at positions, between those of a fine run of the scheduler, evenly along the way.

    >>> levels((0.0, 0.25, 0.75), [1.0, 0.5, 0.1])
    [1.0, 0.75, 0.3]
    """
    found = np.interp(positions, np.linspace(0, 1, len(fine)), fine)
    return [round(float(at), 7) for at in found]


def best(found: dict[str, tuple[float, float]]) -> str:
    """The allocation that solves most, of those that solve as many the nearest, of equal ones the first. ``found``: share of
    items that are solved (0 where nobody judges) and mean distance from the fine run."""
    return min(found, key=lambda name: (-found[name][0], found[name][1]))
