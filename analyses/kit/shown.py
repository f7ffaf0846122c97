"""A graded reading beside the strict verdict: how much of an answer does the last frame show, be the rest readable or not?

The strict verdict wants every cell of every frame to be readable. A patch that moves the whole plan and smudges one cell of 225
is *undecided* to it. Here only the cells are looked at in which the two answers of a pair end differently.
"""

from __future__ import annotations

import numpy as np

from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.problems import Problem, whose
from cos_interp.tasks import Item, get_task, reader
from cos_interp.tasks.base import outcome
from cos_interp.tasks.grid import TRAIL


def own_cells(item: Item, other: Item) -> np.ndarray:
    """Cells ``[row, col]`` that the item's answer changes by the last frame and that end otherwise in the other's: those with a
    trail, or, where it leaves none there, those where the moving thing stands. All False where the two end alike."""
    only = (item.cells[-1] != item.cells[0]) & (item.cells[-1] != other.cells[-1])
    trail = only & (item.cells[-1] == TRAIL)
    return trail if trail.any() else only & np.isin(item.cells[-1], get_task(item.task).moving(item))


def read_pair(target: Item, donor: Item, frames: np.ndarray) -> Row:
    """What a patched run's video shows: whose answer, strictly, and how much of either one's. ``frames`` as in :func:`shown`."""
    said = outcome(get_task(target.task), target, donor, frames)
    return {"outcome": said, "donor_shown": shown(donor, target, frames), "target_shown": shown(target, donor, frames)}


def read_sides(target: Problem, donor: Problem, frames: np.ndarray) -> Row:
    """As :func:`read_pair`, of sides that may be the user's own: then whose answer the scorer says, and nothing graded."""
    if target.item is not None and donor.item is not None:
        return read_pair(target.item, donor.item, frames)
    return {"outcome": whose(target, donor, frames)}


def shown(item: Item, other: Item, frames: np.ndarray) -> float:
    """Mean share of the item's answer in its :func:`own_cells` of the last frame: 0 as in the other's answer, 1 as in its own.

    ``frames``: ``[FRAMES, height, width, 3]``. NaN where the item has no such cell.
    """
    ends = (other.cells[-1], item.cells[-1])
    last = reader.tiles(reader.as_float(frames[-1:]))[0]
    places = zip(*np.nonzero(own_cells(item, other)), strict=True)
    shares = [reader.share(last[at], *(int(end[at]) for end in ends)) for at in places]
    return float(np.clip(shares, 0, 1).mean()) if shares else float("nan")
