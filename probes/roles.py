"""Where along depth a target becomes readable: first reliable decoding, peak, and the expected layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

BASELINES = ("majority", "shuffled", "x_t", "first frame", "position")
OWN = ("majority", "shuffled", "x_t", "position")  # what a token has before any layer; the first frame must be looked up


@dataclass(frozen=True)
class Role:
    """``first``, ``peak``: (layer, step), None where nothing is reliable; ``depth``: expected layer with its draws."""

    target: str
    family: str
    first: tuple[int, int] | None
    peak: tuple[int, int]
    score: float
    low: float
    high: float
    baseline: float
    depth: float
    draws: np.ndarray

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the expected layer over clips."""
        if not np.isfinite(self.draws).any():
            return float("nan"), float("nan")
        low, high = np.nanquantile(self.draws, [0.025, 0.975])
        return float(low), float(high)


def expected_layer(by_layer: np.ndarray, baseline: np.ndarray | float) -> np.ndarray:
    """Mean layer of the gains in score, ``sum_l l * gain_l / sum_l gain_l`` (Tenney et al. 2019, section 3.2).

    ``by_layer [..., layer]``; the gain of a layer is what it adds to the best score of ``baseline`` and all layers before.
    NaN where no layer adds anything.

    >>> round(float(expected_layer(np.array([0.5, 0.7, 0.9, 0.8]), 0.5)), 12)
    1.5
    """
    start = np.broadcast_to(np.asarray(baseline, float), by_layer.shape[:-1])[..., None]
    best = np.maximum.accumulate(np.concatenate([start, by_layer], -1), -1)
    gains = np.diff(best, axis=-1)
    total = gains.sum(-1)
    weighted = (gains * np.arange(by_layer.shape[-1])).sum(-1)
    return np.divide(weighted, total, out=np.full(total.shape, np.nan), where=total > 1e-9)


def role(scores: pd.DataFrame, drawn: np.ndarray) -> Role:
    """The role of a target from a grid's ``scores`` over one site and its paired ``drawn [resample, layer, step]``.

    A cell is reliable when its interval lies above every baseline (majority, shuffled labels, inputs) of its step; the first
    one has the lowest layer, then the lowest step. A perception target says what the first frame shows, so there the first
    frame is no baseline but the source. The expected layer uses scores averaged over the steps, from the best baseline that a
    token holds before any layer.
    """
    kinds = OWN if scores.family.iloc[0] == "perception" else BASELINES
    baseline = scores[[b for b in kinds if b in scores]].max(axis=1)
    reliable = scores[scores.low > baseline].sort_values(["layer", "step"])
    best = scores.loc[scores.score.idxmax()]
    layers = scores.pivot(index="layer", columns="step", values="score").mean(axis=1).to_numpy()
    own = scores[[b for b in OWN if b in scores]].max(axis=1)
    floor = float(own.groupby(scores.step).max().mean())
    return Role(
        str(best.target), str(best.family),
        None if reliable.empty else (int(reliable.iloc[0].layer), int(reliable.iloc[0].step)),
        (int(best.layer), int(best.step)), float(best.score), float(best.low), float(best.high), float(baseline[best.name]),
        float(expected_layer(layers, floor)), expected_layer(drawn.mean(-1), floor),
    )  # fmt: skip
