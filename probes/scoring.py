"""Scores from per-clip tallies, so that intervals come from resampling clips and not tokens."""

from __future__ import annotations

import numpy as np

RESAMPLES = 500


def class_tally(y: np.ndarray, predicted: np.ndarray, clip: np.ndarray, clips: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Confusion counts by clip, ``[clip, true class, predicted class]``; ``clips`` are the sorted clip numbers."""
    size = len(classes)
    flat = (np.searchsorted(clips, clip) * size + np.searchsorted(classes, y)) * size + np.searchsorted(classes, predicted)
    return np.bincount(flat, minlength=len(clips) * size**2).reshape(len(clips), size, size)


def value_tally(y: np.ndarray, predicted: np.ndarray, clip: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """``[clip, k, 4]``: count, sum of y, sum of y^2, sum of squared errors of each output."""
    y, predicted = y.reshape(len(y), -1).astype(float), predicted.reshape(len(y), -1)
    parts = np.stack([np.ones_like(y), y, y**2, (y - predicted) ** 2], -1)
    out = np.zeros((len(clips), *parts.shape[1:]))
    np.add.at(out, np.searchsorted(clips, clip), parts)
    return out


def balanced_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Mean recall over the classes that occur, from confusion counts ``[..., true, predicted]``.

    >>> float(balanced_accuracy(np.array([[8, 2], [1, 1]])))
    0.65
    """
    counts = confusion.sum(-1)
    recall = np.divide(np.diagonal(confusion, axis1=-2, axis2=-1), counts, out=np.zeros_like(counts, float), where=counts > 0)
    return recall.sum(-1) / np.maximum((counts > 0).sum(-1), 1)


def r_squared(sums: np.ndarray) -> np.ndarray:
    """R2 over all outputs together, ``1 - sum SSE / sum SST``, from summed value tallies ``[..., k, 4]``."""
    count, total, squares, error = np.moveaxis(np.asarray(sums, float), -1, 0)
    spread = (squares - total**2 / np.maximum(count, 1)).sum(-1)
    return 1 - error.sum(-1) / np.where(spread > 0, spread, np.nan)


def score(summed: np.ndarray) -> np.ndarray:
    """The score of summed tallies: balanced accuracy of ``[..., c, c]`` counts, R2 of ``[..., k, 4]`` float sums."""
    return balanced_accuracy(summed) if np.issubdtype(summed.dtype, np.integer) else r_squared(summed)


def draws(clips: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each clip is drawn in each bootstrap resample, ``[resample, clip]``."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(clips, np.full(clips, 1 / clips), resamples)


def resampled(tally: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Scores of the resamples, ``[resample]``, or ``[resample, ...]`` for tallies ``[clip, ..., c, c]``."""
    flat = drawn.astype(float) @ tally.reshape(len(tally), -1)
    shaped = flat.reshape(len(drawn), *tally.shape[1:])
    if not np.issubdtype(tally.dtype, np.integer):
        return score(shaped)
    # a resample that lost a class has another chance level, and so no score of this question
    lost = ((shaped.sum(-1) == 0) & (tally.sum(0).sum(-1) > 0)).any(-1)
    return np.where(lost, np.nan, score(np.rint(shaped).astype(np.int64)))


def interval(tally: np.ndarray, drawn: np.ndarray | None = None) -> tuple[float, float, float]:
    """Score with its 95 % percentile interval over clips. NaN bounds for a single clip."""
    value = float(score(tally.sum(0)))
    if len(tally) < 2:
        return value, float("nan"), float("nan")
    low, high = np.nanquantile(resampled(tally, draws(len(tally)) if drawn is None else drawn), [0.025, 0.975])
    return value, float(low), float(high)
