"""Intervals and effects as short pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import scipy.stats
from torch import Tensor

from cos_interp.analyses.driver.estimates import EFFECT, Mean, PairedShares, Share
from cos_interp.analyses.driver.findings import Number

Bounds = tuple[float, float]
Table = TypeVar("Table", pd.Series, pd.DataFrame)


def projection(patched: Tensor, corrupt: Tensor, clean: Tensor) -> float:
    """Effect of a patch on the final latent: ``<p - corrupt, clean - corrupt> / |clean - corrupt|^2``, unclipped.

    0: as the corrupt run, 1: as the clean run along their difference. Exactly 0 and 1 for identical tensors. NaN when
    the two runs do not differ.
    """
    direction = (clean - corrupt).double().flatten()
    moved = (patched - corrupt).double().flatten()
    scale = float(direction @ direction)
    return float(moved @ direction) / scale if scale > 0 else float("nan")


def distance(latent: Tensor, reference: Tensor) -> float:
    """``|latent - reference| / |reference|``, exactly 0 for equal tensors."""
    return float((latent - reference).norm() / reference.norm())


def reread_share(sigmas: Sequence[float], first: int, last: int) -> float:
    """Effect expected of a run that only re-reads its condition at every step, patched in steps ``first..last``.

    Its velocity follows the condition and not x_t, so Euler adds up ``(sigma_k - sigma_k+1) v_k``: the patched steps
    contribute their share of the sigma path. ``sigmas`` has the final 0.
    """
    return (sigmas[first] - sigmas[last + 1]) / sigmas[0]


def remaining_share(sigmas: Sequence[float], step: int) -> float:
    """The step's share of the sigma path that is still ahead, ``(sigma_k - sigma_k+1) / sigma_k``."""
    return (sigmas[step] - sigmas[step + 1]) / sigmas[step]


def mean_number(values: Sequence[float] | np.ndarray, bounds: Bounds | None = None) -> Number:
    """Mean over items with its 95 % interval; NaN items are left out.

    The exact one where all are 0 or 1, unless ``bounds``, between which the quantity lies by its definition, say that these are
    no outcomes; else the bootstrap-t, or Student's t where that has no bounds: where hardly any item differs from the others.
    """
    items = np.asarray(values, float)
    known = items[~np.isnan(items)]
    outcomes = bounds in (None, (0, 1)) and len(known) and np.isin(known, (0, 1)).all()
    return Share(known).number() if outcomes else _mean(known, bounds)


def graded(values: Sequence[float] | np.ndarray) -> Number:
    """Mean over items of numbers that are no outcomes, though all may happen to be 0 or 1; NaN items are left out."""
    items = np.asarray(values, float)
    return _mean(items[~np.isnan(items)])


def _mean(items: np.ndarray, bounds: Bounds | None = None) -> Number:
    skewed = Mean(items, bounds=bounds)
    return skewed.number() if np.isfinite(skewed.interval()).all() else Mean(items, normal=True, bounds=bounds).number()


def by_item(rows: pd.DataFrame, value: str, item: str = "problem", bounds: Bounds | None = None) -> Number:
    """Mean of a column: within each item first, then over items, with the interval over items. ``bounds`` as of
    :func:`mean_number`; a column of outcomes, 0 or 1, has those of a share where no others are given."""
    outcomes = rows[value].dropna().isin((0, 1)).all()
    return mean_number(rows.groupby(item)[value].mean().to_numpy(float), (0, 1) if outcomes and bounds is None else bounds)


def paired(first: pd.Series, second: pd.Series) -> Number:
    """Mean of ``first - second`` over the items that both have, aligned by index, with its paired interval: Newcombe's where both
    are 0 or 1."""
    both = pd.concat([first, second], axis=1, join="inner").dropna().to_numpy(float)
    if len(both) and np.isin(both, (0, 1)).all():
        return PairedShares(both[:, 0], both[:, 1]).number()
    return _mean(both[:, 0] - both[:, 1])  # differences that happen to be 0 and 1 are no share


def relative(more: pd.Series, less: pd.Series) -> pd.Series:
    """How far amounts above 0 lie above others, as a share of the larger of the two, from -1 to 1; 0 where both are 0. Divided by
    one of them alone it would have no bound where that one happens to be small.

    >>> relative(pd.Series([4.0, 1.0, 0.0]), pd.Series([1.0, 4.0, 0.0])).tolist()
    [0.75, -0.75, 0.0]
    """
    return ((more - less) / np.maximum(more, less)).where(more != less, 0.0)


def effect(moved: Table) -> Table:
    """How far patched runs went from their own end (0) to their donor's (1), as it counts: no further than all the way, in either
    direction. A run that diverges by itself may go ten times as far, and would decide for all others."""
    return moved.astype(float).clip(*EFFECT)


def curve(
    rows: pd.DataFrame, value: str, along: str = "step", item: str = "problem", bounds: Bounds | None = None
) -> pd.DataFrame:
    """Columns ``along, mean, low, high, n, interval``: :func:`by_item` at every point of an axis."""
    return points({at: by_item(part, value, item, bounds) for at, part in rows.groupby(along)}, along)


def points(numbers: Mapping[Any, Number], along: str) -> pd.DataFrame:
    """Columns ``along, mean, low, high, n, interval``: numbers by their place, as curves and bars are drawn of them."""
    return pd.DataFrame([{along: at, **number.point} for at, number in numbers.items()])


def flat(number: Number, along: str, first: float, last: float) -> pd.DataFrame:
    """One number as a level line: the columns of :func:`points`."""
    return points({first: number, last: number}, along)


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counted half (Mann and Whitney's U over
    the number of pairs: a bootstrap takes a thousand, and each costs a tenth of scikit-learn's). NaN for one class."""
    scores, labels = np.asarray(scores, float), np.asarray(labels, bool)
    above, below = scores[labels], scores[~labels]
    pairs = len(above) * len(below)
    return float(scipy.stats.mannwhitneyu(above, below, method="asymptotic").statistic) / pairs if pairs else float("nan")


def entropy(labels: Sequence[object]) -> float:
    """Shannon entropy of the shares of labels, in bits."""
    _, counts = np.unique([str(label) for label in labels], return_counts=True)
    return float(scipy.stats.entropy(counts, base=2))


def items_each(rows: pd.DataFrame, by: Sequence[str] | str, item: str = "problem") -> list[int]:
    """How many items each part of some rows is of."""
    return [int(n) for n in rows.groupby(by, sort=False)[item].nunique()]
