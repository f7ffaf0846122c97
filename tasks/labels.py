"""What can be read from the tokens of a task's clips: labels by name and family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from cos_interp.tasks import grid
from cos_interp.tasks.item import Item

Family = Literal["perception", "reasoning", "consolidation"]
FAMILIES: tuple[Family, ...] = get_args(Family)
TOKENS = (grid.LATENT_FRAMES, grid.ROWS, grid.COLS)
CELLS = tuple(str(i) for i in range(grid.ROWS * grid.COLS))  # names of the classes of a label that is a place


@dataclass(frozen=True)
class Label:
    """``read(item)`` gives the class of every token of the true video, int ``[LATENT_FRAMES, ROWS, COLS]``, -1 for none.

    ``names`` are those of the classes, in order. ``given``: the first frame decides it, so that it holds whatever a run answers.
    """

    name: str
    family: Family
    about: str
    names: tuple[str, ...]
    read: Callable[[Item], np.ndarray]
    given: bool = False


def whole_clip(value: int) -> np.ndarray:
    """One class for all tokens."""
    return np.full(TOKENS, value)


def by_frame(values: np.ndarray) -> np.ndarray:
    """Classes ``[LATENT_FRAMES]`` for the tokens of all cells."""
    return np.broadcast_to(values[:, None, None], TOKENS).astype(np.int64)


def by_cell(values: np.ndarray) -> np.ndarray:
    """Classes ``[ROWS, COLS]`` for the tokens of all latent frames."""
    return np.broadcast_to(values, TOKENS).astype(np.int64)


def last_pixel_frames(video: np.ndarray) -> np.ndarray:
    """Of each latent frame the last pixel frame: ``[FRAMES, ...] -> [LATENT_FRAMES, ...]``."""
    from cos_interp.interp import pixel_to_latent  # loads torch

    latent = pixel_to_latent(len(video), grid.LATENT_FRAMES)
    return video[np.searchsorted(latent, np.arange(grid.LATENT_FRAMES), side="right") - 1]


# --- what every task shows -----------------------------------------------------------------------------------------


def _part(words: list[str], place: int) -> np.ndarray:
    """Class of a sprite -> index of word ``place`` of its name ("red goal": colour, then shape); -1 for sprites without."""
    named = {name: name.split() for name in grid.CLASSES}
    coloured = {name: parts for name, parts in named.items() if len(parts) == 2 and parts[0] in grid.COLOURS}
    return np.array([words.index(coloured[name][place]) if name in coloured else -1 for name in grid.CLASSES])


COLOURS, SHAPES = list(grid.COLOURS), ["goal", *grid.SHAPES]
COLOUR_OF, SHAPE_OF = _part(COLOURS, 0), _part(SHAPES, 1)

SEEN = (
    Label(
        "cell_class", "perception", "what the cell shows at the token's time", grid.CLASSES,
        lambda item: last_pixel_frames(item.cells).astype(np.int64),
    ),
    Label(
        "first_class", "perception", "what the cell shows in the given first frame", grid.CLASSES,
        lambda item: by_cell(item.cells[0]), given=True,
    ),
)  # fmt: skip

# for tasks whose things have colours
COLOURED = (
    Label(
        "first_colour", "perception", "colour of what stands in the cell in the first frame", tuple(COLOURS),
        lambda item: by_cell(COLOUR_OF[item.cells[0]]), given=True,
    ),
    Label(
        "first_shape", "perception", "shape of what stands in the cell in the first frame", tuple(SHAPES),
        lambda item: by_cell(SHAPE_OF[item.cells[0]]), given=True,
    ),
)  # fmt: skip
