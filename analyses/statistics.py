"""Intervals and effects as short pure functions."""

from __future__ import annotations

import numpy as np
from torch import Tensor

RESAMPLES = 2000


def bootstrap_mean(values: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float, float]:
    """Mean and 95 % percentile bootstrap interval over items (rows of ``values``: one number an item).

    With one item the interval is undefined and given as NaN.
    """
    values = np.asarray(values, float)
    if len(values) == 0:
        return float("nan"), float("nan"), float("nan")
    if len(values) == 1:
        return float(values[0]), float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def projection(patched: Tensor, corrupt: Tensor, clean: Tensor) -> float:
    """Effect of a patch on the final latent: ``<p - corrupt, clean - corrupt> / |clean - corrupt|^2``, unclipped.

    0: as the corrupt run, 1: as the clean run along their difference. Exactly 0 and 1 for identical tensors. NaN when
    the two runs do not differ.
    """
    direction = (clean - corrupt).double().flatten()
    moved = (patched - corrupt).double().flatten()
    scale = float(direction @ direction)
    return float(moved @ direction) / scale if scale > 0 else float("nan")


def reread_share(sigmas: list[float], first: int, last: int) -> float:
    """Effect expected of a run that only re-reads its condition at every step, patched in steps ``first..last``.

    Its velocity follows the condition and not x_t, so Euler adds up ``(sigma_k - sigma_k+1) v_k``: the patched steps
    contribute their share of the sigma path. ``sigmas`` has the final 0.
    """
    return (sigmas[first] - sigmas[last + 1]) / sigmas[0]


def remaining_share(sigmas: list[float], step: int) -> float:
    """The step's share of the sigma path that is still ahead, ``(sigma_k - sigma_k+1) / sigma_k``."""
    return (sigmas[step] - sigmas[step + 1]) / sigmas[step]
