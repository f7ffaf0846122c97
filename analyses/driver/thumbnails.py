"""Clips small enough to be kept of every run, for figures whose points show what they are of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from cos_interp.analyses.driver.parts import Reel, Shown

SIDE, FRAMES = 48, 5  # of a small clip, at most: its shorter side, and how many
OF_A_REEL = 128  # clips of a picture


def small_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of a small clip: a whole part of the clip's own, so that what is drawn in blocks stays sharp."""
    part = -(-min(height, width) // SIDE)
    return max(1, height // part), max(1, width // part)


def thumbnail(clip: np.ndarray) -> np.ndarray:
    """A clip ``[pixel frame, height, width, 3]``, small enough to be kept of every run: some of its frames, the shorter side of
    at most SIDE pixels."""
    frames, height, width, _ = clip.shape
    picked = sorted({round(k) for k in np.linspace(0, frames - 1, min(FRAMES, frames))})
    size = small_size(height, width)[::-1]
    return np.stack([np.asarray(Image.fromarray(clip[k]).resize(size, Image.Resampling.BOX)) for k in picked])


def thumbnail_bytes(frames: int, height: int, width: int) -> int:
    """What a :func:`thumbnail` of a video of this size takes."""
    return min(FRAMES, frames) * math.prod(small_size(height, width)) * 3


def thumbnails(made: Sequence[tuple[Shown, np.ndarray]]) -> list[Reel]:
    """Many small clips as reels that figures look into, by their size and so many a reel."""
    of_size: dict[tuple[int, ...], list[tuple[Shown, np.ndarray]]] = {}
    for shown, clip in made:
        of_size.setdefault(clip.shape, []).append((shown, clip))
    parts = [same[k : k + OF_A_REEL] for same in of_size.values() for k in range(0, len(same), OF_A_REEL)]
    return [
        Reel(f"small clips {n}", "", np.stack([clip for _, clip in part]), [shown for shown, _ in part], looked_up=True)
        for n, part in enumerate(parts, 1)
    ]


def looked_into(reels: Sequence[Reel], axis: str) -> dict[str | int, tuple[str, ...]]:
    """The reels in which each value of an axis is to be seen."""
    found: dict[str | int, dict[str, None]] = {}
    for reel in reels:
        for row in reel.rows:
            found.setdefault(row.at[axis], {})[reel.name] = None
    return {value: tuple(names) for value, names in found.items()}
