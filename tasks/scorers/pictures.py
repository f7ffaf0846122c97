"""Two videos made comparable, and what is measured between pictures. Pure maths on arrays in [0, 1]."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, uniform_filter1d

WINDOW = 1.5  # standard deviation of the window of SSIM, in pixels (Wang, Bovik, Sheikh & Simoncelli 2004)
C1, C2 = 0.01**2, 0.03**2  # its constants, for intensities in [0, 1]


def as_float(video: np.ndarray) -> np.ndarray:
    """uint8 or float in [0, 1], as float64 in [0, 1]."""
    video = np.asarray(video)
    return video.astype(np.float64) / 255 if video.dtype == np.uint8 else video.astype(np.float64)


def shrunk(video: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pictures ``[..., rows, cols, 3]`` averaged to a size that theirs is a whole multiple of. ValueError for another."""
    *lead, rows, cols, channels = video.shape
    if rows % height or cols % width or rows < height:
        raise ValueError(
            f"the video has {cols}x{rows} pixels, the reference {width}x{height}: one must be a multiple of the other"
        )
    return video.reshape(*lead, height, rows // height, width, cols // width, channels).mean(axis=(-4, -2))


def same_size(video: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two videos ``[frame, height, width, 3]`` as floats of one size. ValueError where lengths or shapes do not fit.

    The larger is averaged down, which is only done by whole numbers: a video of another shape is not compared at all.
    """
    one, other = as_float(video), as_float(reference)
    if len(one) != len(other):
        raise ValueError(f"the video has {len(one)} frames, the reference {len(other)}")
    height, width = min(one.shape[1], other.shape[1]), min(one.shape[2], other.shape[2])
    return shrunk(one, height, width), shrunk(other, height, width)


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Structural similarity of two pictures ``[height, width, 3]`` in [0, 1], mean over pixels and channels; 1 for equal ones.

    >>> flat = np.zeros((16, 16, 3))
    >>> ssim(flat, flat)
    1.0
    """
    blur = lambda picture: gaussian_filter(picture, (WINDOW, WINDOW, 0), truncate=3.5)
    mean, mean2 = blur(one), blur(other)
    var, var2, both = blur(one**2) - mean**2, blur(other**2) - mean2**2, blur(one * other) - mean * mean2
    found = (2 * mean * mean2 + C1) * (2 * both + C2) / ((mean**2 + mean2**2 + C1) * (var + var2 + C2))
    return float(found.mean())


def regions(video: np.ndarray, count: int) -> np.ndarray:
    """Mean colour of ``count x count`` regions, ``[..., count, count, 3]`` of ``[..., height, width, 3]``."""
    rows = np.array_split(np.arange(video.shape[-3]), count)
    cols = np.array_split(np.arange(video.shape[-2]), count)
    lines = np.stack([video[..., r, :, :].mean(-3) for r in rows], -3)
    return np.stack([lines[..., c, :].mean(-2) for c in cols], -2)


def changes(video: np.ndarray) -> np.ndarray:
    """Largest change of a small patch between consecutive frames, ``[frame - 1]``: noise averages out, a thing stays."""
    steps = np.abs(np.diff(video.mean(-1), axis=0))
    side = max(1, min(video.shape[1:3]) // 16)
    return uniform_filter1d(uniform_filter1d(steps, side, axis=1), side, axis=2).max((1, 2))
