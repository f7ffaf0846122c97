"""Where along depth a target becomes readable: first reliable decoding, peak, and the centre of what is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

BASELINES = ("majority", "shuffled", "x_t", "first frame", "position")
OWN = ("majority", "shuffled", "x_t", "position")  # what a token has before any layer; the first frame must be looked up


@dataclass(frozen=True)
class Role:
    """``first``, ``peak``: (layer, step), ``first`` None where nothing is reliable; ``baseline``: the best one at the peak."""

    target: str
    family: str
    first: tuple[int, int] | None
    peak: tuple[int, int]
    score: float
    low: float
    high: float
    baseline: float


def centre(by_layer: np.ndarray) -> float:
    """Where in depth something is read, 0 (first layer) to 1 (last): the mean layer, weighted by what of ``by_layer`` is above 0
    (a score minus its control). NaN for nothing.

    Unlike the mean layer of the gains over the best layer so far, noise does not pull it to the early layers.

    >>> centre(np.array([-0.1, 0.0, 0.2, 0.2, 0.0]))
    0.625
    """
    weight = np.maximum(by_layer, 0)
    return float((weight * np.linspace(0, 1, len(weight))).sum() / weight.sum()) if weight.sum() > 0 else float("nan")


def role(scores: pd.DataFrame) -> Role:
    """The role of a target from a grid's ``scores`` over one site.

    A cell is reliable when its interval lies above every baseline (majority, shuffled labels, inputs) of its step; the first
    one has the lowest layer, then the lowest step. A perception target says what the first frame shows, so there the first
    frame is no baseline but the source.
    """
    kinds = OWN if scores.family.iloc[0] == "perception" else BASELINES
    baseline = scores[[b for b in kinds if b in scores]].max(axis=1)
    reliable = scores[scores.low > baseline].sort_values(["layer", "step"])
    best = scores.loc[scores.score.idxmax()]
    return Role(
        str(best.target), str(best.family),
        None if reliable.empty else (int(reliable.iloc[0].layer), int(reliable.iloc[0].step)),
        (int(best.layer), int(best.step)), float(best.score), float(best.low), float(best.high), float(baseline[best.name]),
    )  # fmt: skip
