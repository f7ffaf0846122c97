"""Frames of several clips in one picture, of a bounded size: what a page shows without scripts, and plays with them."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

MOST_PIXELS = 4_000_000  # of a picture
LONGEST = 16_000  # pixels of a side; WebP ends at 16,383
SMALLEST = 48  # pixels to which frames are made smaller before some of them are left out


@dataclass(frozen=True)
class Sheet:
    """A WebP picture: a row a clip, a column a frame, each ``height`` x ``width``. ``frames``: which pixel frames are there."""

    data: bytes
    rows: int
    frames: tuple[int, ...]
    height: int
    width: int


def plan(rows: int, frames: int, height: int, width: int) -> tuple[list[int], float]:
    """Which frames are shown, and by what they are made smaller, to stay within the bounds.

    >>> plan(2, 9, 80, 80)
    ([0, 1, 2, 3, 4, 5, 6, 7, 8], 1.0)
    >>> picked, scale = plan(51, 81, 480, 832)
    >>> len(picked), round(480 * scale), 51 * len(picked) * 480 * 832 * scale**2 < MOST_PIXELS
    (19, 48, True)
    """
    least = min(1.0, SMALLEST / min(height, width))
    fits = lambda count, scale: (
        rows * count * height * width * scale**2 <= MOST_PIXELS
        and count * width * scale <= LONGEST and rows * height * scale <= LONGEST
    )  # fmt: skip
    count = frames
    while count > 1 and not fits(count, least):
        count -= 1
    scale = 1.0
    while not fits(count, scale):
        scale = max(least, scale * 0.97) if scale > least else scale * 0.97
    return sorted({round(k) for k in np.linspace(0, frames - 1, count)}), scale


def sheet(clips: np.ndarray) -> Sheet:
    """Clips ``[row, pixel frame, height, width, 3]``, uint8, as a picture."""
    rows, frames, height, width, _ = clips.shape
    picked, scale = plan(rows, frames, height, width)
    small = (max(1, round(height * scale)), max(1, round(width * scale)))
    out = Image.new("RGB", (len(picked) * small[1], rows * small[0]))
    for row in range(rows):
        for column, frame in enumerate(picked):
            tile = Image.fromarray(clips[row, frame])
            tile = tile if scale == 1 else tile.resize((small[1], small[0]), Image.Resampling.BOX)
            out.paste(tile, (column * small[1], row * small[0]))
    buffer = io.BytesIO()
    out.save(buffer, "webp", quality=90, method=4, use_sharp_yuv=True)
    return Sheet(buffer.getvalue(), rows, tuple(picked), *small)
