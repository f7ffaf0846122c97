"""Videos that show no reasoning and cost none: what stands beside every score, since some benchmarks reward them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np


def frozen(truth: np.ndarray) -> np.ndarray:
    """The first frame, as often as the video is long: uint8 ``[frame, height, width, 3]``, as all here."""
    return np.repeat(truth[:1], len(truth), 0)


def jump(truth: np.ndarray) -> np.ndarray:
    """The first frame for half of the time, then the last one."""
    half = np.arange(len(truth)) >= (len(truth) + 1) // 2
    return np.where(half[:, None, None, None], truth[-1:], truth[:1])


def crossfade(truth: np.ndarray) -> np.ndarray:
    """From the first frame to the last one by fading."""
    weight = np.linspace(0, 1, len(truth))[:, None, None, None]
    return np.round((1 - weight) * truth[:1] + weight * truth[-1:]).astype(np.uint8)


def backwards(truth: np.ndarray) -> np.ndarray:
    """The true video from its end to its beginning."""
    return truth[::-1]


# made of a first and a last frame alone
SHORTCUTS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {"frozen": frozen, "jump": jump, "crossfade": crossfade}
