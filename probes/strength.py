"""The penalty of a probe, chosen on splits of its training rows alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit

from cos_interp.probes.solvers import fit_affine, raw_units

if TYPE_CHECKING:
    from cos_interp.probes.estimator import LinearProbe

HELD_OUT = 0.25
FALLBACK = 1.0


def choose(probe: LinearProbe, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> float:
    """The best of ``STRENGTHS`` on held-out rows (whole groups where given); 1 where the rows are too few to hold any out."""
    from cos_interp.probes.estimator import STRENGTHS

    if probe.kind == "mean-difference":
        return FALLBACK
    parts = list(_splits(probe, X, y, groups))
    if not parts:
        return FALLBACK
    scores = [np.mean([_held_out(probe, X, y, train, test, s) for train, test in parts]) for s in STRENGTHS]
    return float(STRENGTHS[int(np.argmax(scores))])


def _splits(probe: LinearProbe, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None):
    units = len(X) if groups is None else len(np.unique(groups))
    if units < 8:
        return
    maker = ShuffleSplit if groups is None else GroupShuffleSplit
    for train, test in maker(probe.inner, test_size=HELD_OUT, random_state=probe.random_state).split(X, y, groups):
        if not probe.classifies or len(np.unique(y[train])) == len(probe.classes_):
            yield train, test


def _held_out(probe: LinearProbe, X: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray, strength: float) -> float:
    coef, intercept = raw_units(fit_affine(probe, X[train], y[train], strength))
    scores = X[test] @ coef.T + intercept
    if not probe.classifies:
        return float(r2_score(y[test], scores if y.ndim == 2 else scores[:, 0]))
    found = (scores[:, 0] > 0).astype(int) if scores.shape[1] == 1 else scores.argmax(1)
    return float(balanced_accuracy_score(y[test], probe.classes_[found]))
