"""Where the objects of an item truly are, in pixel frames and on a model's token grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.kit.attention_maths import Grid
from cos_interp.interp.views import pixel_to_latent
from cos_interp.tasks import Item, get_task, grid, reader
from cos_interp.tasks.base import find

Cell = tuple[int, int]


@dataclass(frozen=True)
class Track:
    """One object: its cell in every pixel frame (also while it is hidden), and where it is seen."""

    name: str
    classes: tuple[int, ...]
    cells: tuple[Cell, ...]
    seen: tuple[bool, ...]


def fill_gaps(found: list[Cell | None]) -> tuple[Cell, ...]:
    """Cells of an object that is out of sight in some frames, on the straight line between its last and next sight.

    >>> fill_gaps([(0, 0), None, (0, 2), None])
    ((0, 0), (0, 1), (0, 2), (0, 2))
    """
    at = [i for i, cell in enumerate(found) if cell is not None]
    known = np.array([found[i] for i in at], float)
    rows, cols = (np.interp(range(len(found)), at, known[:, axis]) for axis in (0, 1))
    return tuple((round(float(r)), round(float(c))) for r, c in zip(rows, cols, strict=True))


def track_of(item: Item, name: str, classes: Sequence[int] | None = None) -> Track:
    """Where the object of a name is in an item's video, and where it is seen; ``classes``: those that show it."""
    shown = [grid.CLASS_ID[name]] if classes is None else list(classes)
    found = [next(iter(find(frame, shown)), None) for frame in item.cells]
    return Track(name, tuple(shown), fill_gaps(found), tuple(cell is not None for cell in found))


def tracks(item: Item) -> list[Track]:
    """The objects that an item is about: the hidden ones of an occlusion, else the moving thing."""
    hidden = [track_of(item, name) for name in item.metadata.get("hidden", ())]
    moving = get_task(item.task).moving(item)
    name = grid.CLASSES[moving[0]]
    return hidden or [track_of(item, name.split()[0] if len(moving) > 1 else name, moving)]


def nearest_sprites(frames: np.ndarray) -> np.ndarray:
    """Class of the nearest sprite in every cell of a video, ``[pixel frame, row, col]``: a lenient reading, never undecided."""
    cells = reader.tiles(reader.as_float(frames))
    sprites = grid.sprite_table().reshape(len(grid.CLASSES), -1).astype(float) / 255
    return ((sprites**2).sum(-1) - 2 * cells @ sprites.T).argmin(-1)


def pixel_frames(latent: int, latent_frames: int) -> list[int]:
    """Pixel frames that a latent frame covers: the first covers frame 0 alone, the others equal runs of what follows."""
    return np.flatnonzero(pixel_to_latent(grid.FRAMES, latent_frames) == latent).tolist()


def tokens_of(cells: list[Cell] | tuple[Cell, ...], frame: int, shape: Grid) -> Tensor:
    """Bool ``[token]``: the tokens of a latent frame that lie in some cells of the tasks' grid."""
    frames, rows, cols = shape
    mask = torch.zeros(frames, rows, cols, dtype=torch.bool)
    wanted = set(cells)
    for row in range(rows):
        for col in range(cols):
            mask[frame, row, col] = (row * grid.ROWS // rows, col * grid.COLS // cols) in wanted
    return mask.flatten()


def cell_at(token: int, shape: Grid) -> Cell:
    """The cell of the tasks' grid that a token number within one frame lies in."""
    _, rows, cols = shape
    return (token // cols) * grid.ROWS // rows, (token % cols) * grid.COLS // cols
