"""Sets of block calls to be saved, and how one is chosen. Pure maths.

A call is (step, layer, branch). A cell of the map is a layer in a span of steps; its calls are those that a method saves there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cos_interp.analyses.acceleration import Call


@dataclass(frozen=True)
class Cell:
    """A layer and branch in the span of steps ``first`` to ``last``."""

    first: int
    last: int
    layer: int
    branch: str

    @property
    def band(self) -> str:
        return f"{self.first} to {self.last}"

    def calls(self, interval: int | None) -> tuple[Call, ...]:
        """Its calls: all, or with an ``interval`` those that are taken from a step before, so that of so many steps one is
        computed, the second first: ``(step - first - 1) % interval == 0``, as TaylorSeer in diffusers counts.

        >>> Cell(1, 4, 0, "cond").calls(2)
        ((1, 0, 'cond'), (3, 0, 'cond'))
        """
        steps = range(self.first, self.last + 1)
        kept = [k for k in steps if interval is None or (k - self.first - 1) % interval]
        return tuple((step, self.layer, self.branch) for step in kept)


def bands(stretch: range, count: int, interval: int) -> list[tuple[int, int]]:
    """First and last step of up to ``count`` spans of the steps of one expert from its second on (its first has none before it),
    whole intervals each but the last.

    >>> bands(range(10), 3, 2), bands(range(6, 10), 9, 2), bands(range(5, 6), 3, 2)
    ([(1, 4), (5, 6), (7, 9)], [(7, 8), (9, 9)], [])
    """
    first, steps = stretch.start + 1, len(stretch)
    cuts = [min(steps - 1, interval * round(part * (steps - 1) / interval / count)) for part in range(count)] + [steps - 1]
    return [(first + a, first + b - 1) for a, b in zip(cuts, cuts[1:], strict=False) if b > a]


def cells(stretches: Iterable[range], layers: int, branches: Sequence[str], count: int, interval: int) -> list[Cell]:
    """All cells of the map: up to ``count`` spans of every stretch of steps that one expert runs."""
    spans = [span for stretch in stretches for span in bands(stretch, count, interval)]
    return [Cell(a, b, layer, branch) for a, b in spans for layer in range(layers) for branch in branches]


def within(stretches: Iterable[range], layers: Iterable[int], branches: Sequence[str], steps: range) -> list[Cell]:
    """The cells of some layers at some steps, cut where an expert begins, at whose first step nothing is held.

    >>> [cell.band for cell in within([range(6), range(6, 10)], [3], ["cond"], range(4, 9))]
    ['4 to 5', '7 to 8']
    """
    cut = [(max(steps.start, some.start + 1), min(steps.stop, some.stop) - 1) for some in stretches]
    return [Cell(a, b, layer, branch) for a, b in cut if a <= b for layer in layers for branch in branches]


def spanned(pool: Iterable[Cell]) -> list[int]:
    """The steps that cells span: all but the first of each expert.

    >>> spanned([Cell(1, 2, 0, "cond"), Cell(4, 5, 0, "cond"), Cell(1, 2, 1, "cond")])
    [1, 2, 4, 5]
    """
    return sorted({step for cell in pool for step in range(cell.first, cell.last + 1)})


def budget(saving: float, steps: int, layers: int, branches: int, pool: int) -> int:
    """Calls that a schedule saves, of a ``pool`` that may be."""
    return min(pool, max(1, round(saving * steps * layers * branches)))


def filled(order: Iterable[Cell], interval: int | None, count: int) -> tuple[Call, ...]:
    """The calls of cells in an order until there are so many; the last cell is cut."""
    calls = [call for cell in order for call in cell.calls(interval)]
    return tuple(sorted(calls[:count]))


def chosen(damage: Mapping[Cell, tuple[float, float]], interval: int | None, count: int) -> tuple[Call, ...]:
    """The calls that are missed least. ``damage`` of a cell: share of items whose answer changes, and mean distance of the final
    latent; cells that change no more answers come first, of these those with the least distance a call."""
    rank = lambda cell: (damage[cell][0], damage[cell][1] / max(1, len(cell.calls(interval))))
    return filled(sorted(damage, key=rank), interval, count)


def uniform(steps: Sequence[int], layers: int, branches: Sequence[str], count: int) -> tuple[Call, ...]:
    """Whole steps of those that may be saved, evenly spread, as caches for all layers save them; what is left over, in evenly
    spread layers of one more step.

    >>> uniform([1, 2, 3, 4], 2, ["cond"], 5)
    ((1, 0, 'cond'), (1, 1, 'cond'), (3, 0, 'cond'), (4, 0, 'cond'), (4, 1, 'cond'))
    """
    each = layers * len(branches)
    whole, rest = divmod(count, each)
    places = spread(len(steps), whole + bool(rest))
    every = [(layer, branch) for layer in range(layers) for branch in branches]
    part = places[len(places) // 2] if rest else None
    made = [(steps[at], *call) for at in places for call in ([every[i] for i in spread(each, rest)] if at == part else every)]
    return tuple(sorted(made))


def spread(size: int, count: int) -> list[int]:
    """``count`` whole numbers spread evenly over ``range(size)``, first and last among them.

    >>> spread(9, 3), spread(9, 1), spread(3, 3)
    ([0, 4, 8], [4], [0, 1, 2])
    """
    if count == 1:
        return [(size - 1) // 2]
    return [round(at) for at in np.linspace(0, size - 1, count)]


def random(pool: Sequence[Cell], interval: int | None, count: int, seed: int) -> tuple[Call, ...]:
    """As many calls of cells in a random order."""
    order = np.random.default_rng(seed).permutation(len(pool))
    return filled([pool[i] for i in order], interval, count)
