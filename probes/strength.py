"""The penalty of a probe, chosen on splits of its training rows alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit

from cos_interp.probes.solvers import Recipe, fit_affine, raw_units

STRENGTHS = (0.1, 1.0, 10.0, 100.0)  # the penalty; scikit-learn's C is its inverse
HELD_OUT = 0.25
FALLBACK = 1.0
LEAST = 8  # rows, or groups, from which some can be held out


def choose(recipe: Recipe, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None, splits: int) -> float:
    """The best of ``STRENGTHS`` on held-out rows (whole groups where given); 1 where the rows are too few to hold any out."""
    if recipe.kind == "mean-difference":
        return FALLBACK
    parts = list(_splits(recipe, X, y, groups, splits))
    if not parts:
        return FALLBACK
    scores = [np.mean([_held_out(recipe, X, y, train, test, s) for train, test in parts]) for s in STRENGTHS]
    return float(STRENGTHS[int(np.argmax(scores))])


def _splits(
    recipe: Recipe, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None, splits: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if len(X if groups is None else np.unique(groups)) < LEAST:
        return
    maker = ShuffleSplit if groups is None else GroupShuffleSplit
    for train, test in maker(splits, test_size=HELD_OUT, random_state=recipe.random_state).split(X, y, groups):
        if not recipe.classifies or len(np.unique(y[train])) == len(np.unique(y)):
            yield train, test


def _held_out(recipe: Recipe, X: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray, strength: float) -> float:
    coef, intercept = raw_units(fit_affine(recipe, X[train], y[train], strength))
    scores = X[test] @ coef.T + intercept
    if not recipe.classifies:
        return float(r2_score(y[test], scores if y.ndim == 2 else scores[:, 0]))
    found = (scores[:, 0] > 0).astype(int) if scores.shape[1] == 1 else scores.argmax(1)
    return float(balanced_accuracy_score(y[test], np.unique(y)[found]))
