"""Strict reading of decoded frames back into cell classes.

A cell counts as read only when it is close to one sprite and not on the way to another: for the nearest sprite a and
every other sprite b, the share of b in the cell, ``<x - a, b - a> / |b - a|^2``, stays under ``MAX_SHARE``. An average of
two answers is thereby unreadable, however sharp its parts.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from cos_interp.tasks import grid

MAX_SHARE = 0.3  # an even blend has share 0.5, a blend of 70 : 30 is the last that reads
MAX_ERROR = 0.16  # root mean square over the cell's pixels and channels, intensity in [0, 1]


@cache
def _templates() -> tuple[np.ndarray, np.ndarray]:
    flat = grid.sprite_table().reshape(len(grid.CLASSES), -1).astype(np.float64) / 255
    return flat, ((flat[:, None] - flat[None]) ** 2).sum(-1)


def as_float(frames: np.ndarray) -> np.ndarray:
    """Frames as float64 in [0, 1] with one pixel a dot (larger pictures are area-averaged)."""
    frames = np.asarray(frames)
    out = frames.astype(np.float64) / 255 if frames.dtype == np.uint8 else frames.astype(np.float64)
    height, width = grid.ROWS * grid.DOTS, grid.COLS * grid.DOTS
    *lead, rows, cols, channels = out.shape
    if rows % height or cols % width or channels != 3:
        raise ValueError(
            f"a video of {cols}x{rows} pixels and {channels} channels was given; the tasks are drawn on "
            f"{width}x{height} dots in RGB: give that size or a whole multiple of it"
        )
    out = out.reshape(*lead, height, rows // height, width, cols // width, 3)
    return out.mean(axis=(-4, -2))


def tiles(frames: np.ndarray) -> np.ndarray:
    """Float pictures ``[..., ROWS * DOTS, COLS * DOTS, 3]`` cut into flat cells ``[..., row, col, DOTS * DOTS * 3]``."""
    *lead, _, _, _ = frames.shape
    cut = frames.reshape(*lead, grid.ROWS, grid.DOTS, grid.COLS, grid.DOTS, 3)
    return np.moveaxis(cut, -3, -4).reshape(*lead, grid.ROWS, grid.COLS, -1)


def share(cells: np.ndarray, base: int, other: int) -> np.ndarray:
    """How far flat cells lie on the way from sprite ``base`` (0) to sprite ``other`` (1), unclipped."""
    flat, between = _templates()
    return (cells - flat[base]) @ (flat[other] - flat[base]) / between[base, other]


def read(frames: np.ndarray, count: int = grid.FRAMES) -> np.ndarray:
    """Cell classes ``[count, ROWS, COLS]`` of a video of so many frames, ``UNREADABLE`` where no single sprite is seen.

    Raises ValueError when the number of frames or the picture size does not fit the tasks.
    """
    if np.asarray(frames).ndim != 4 or len(frames) != count:
        raise ValueError(
            f"a video of shape {np.asarray(frames).shape} was given; the tasks need {count} frames [frame, height, width, 3]"
        )
    flat, between = _templates()
    cells = tiles(as_float(frames))
    # |x - t|^2 for all sprites at once, by the expanded square
    squared = np.maximum((cells**2).sum(-1)[..., None] - 2 * cells @ flat.T + (flat**2).sum(-1), 0)
    nearest = squared.argmin(-1)
    least = np.take_along_axis(squared, nearest[..., None], -1)
    gaps = between[nearest]
    shares = np.divide(least + gaps - squared, 2 * gaps, out=np.zeros_like(gaps), where=gaps > 0)
    error = np.sqrt(least[..., 0] / flat.shape[1])
    readable = (shares.max(-1) < MAX_SHARE) & (error < MAX_ERROR)
    return np.where(readable, nearest, grid.UNREADABLE)
