"""The fits behind a probe: scikit-learn solvers, and their result as one affine map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.preprocessing import LabelBinarizer
from sklearn.svm import LinearSVC

if TYPE_CHECKING:
    from cos_interp.probes.estimator import LinearProbe


@dataclass(frozen=True)
class Affine:
    """``scores = ((x - mean) / scale) @ coef.T + intercept``; shapes ``[output, d_model]``, ``[output]``, ``[d_model]``."""

    coef: np.ndarray
    intercept: np.ndarray
    mean: np.ndarray
    scale: np.ndarray


def raw_units(found: Affine) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and intercepts for activations as they are.

    >>> raw_units(Affine(np.array([[2.0]]), np.array([1.0]), np.array([3.0]), np.array([4.0])))
    (array([[0.5]]), array([-0.5]))
    """
    coef = found.coef / found.scale
    return coef, found.intercept - coef @ found.mean


def standard(X: np.ndarray, scale: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every unit (1 where a unit never moves, or without scaling)."""
    mean = X.mean(0)
    spread = X.std(0) if scale else np.ones_like(mean)
    return mean, np.where(spread > 1e-12 * np.maximum(np.abs(mean), 1), spread, 1.0)


def class_means(X: np.ndarray, y: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest-class-mean as a linear map: for two classes the difference of means with the threshold halfway."""
    means = np.stack([X[y == c].mean(0) for c in classes])
    coef, intercept = 2 * means, -(means**2).sum(1)
    if len(classes) == 2:
        return (coef[1:] - coef[:1]) / 2, (intercept[1:] - intercept[:1]) / 2
    return coef, intercept


def fit_affine(probe: LinearProbe, X: np.ndarray, y: np.ndarray, strength: float) -> Affine:
    """Fit one probe with a fixed penalty. Scaling is estimated on these rows only."""
    X = X.astype(np.float64, copy=False)
    mean, scale = standard(X, probe.scale and probe.kind != "mean-difference")
    Z = (X - mean) / scale
    if probe.kind == "mean-difference":
        return Affine(*class_means(Z, y, probe.classes_), mean, scale)
    if probe.kind == "pca+logistic":
        pca = PCA(min(probe.components, *Z.shape), random_state=probe.random_state).fit(Z)
        inner = solver(probe, strength).fit(pca.transform(Z), y)
        coef = inner.coef_ @ pca.components_
        return Affine(coef, inner.intercept_ - coef @ pca.mean_, mean, scale)
    inner = solver(probe, strength).fit(Z, y)
    return Affine(np.atleast_2d(inner.coef_), np.atleast_1d(inner.intercept_), mean, scale)


def solver(probe: LinearProbe, strength: float) -> Any:
    """The scikit-learn estimator of a kind, for scaled activations."""
    weight = "balanced" if probe.balanced else None
    if probe.kind == "ridge":
        return Ridge(alpha=strength)
    if probe.kind == "ridge-classifier":
        return RidgeClassifier(alpha=strength, class_weight=weight)
    if probe.kind == "linear-svm":
        return LinearSVC(C=1 / strength, class_weight=weight, dual="auto", random_state=probe.random_state, max_iter=5000)
    return LogisticRegression(C=1 / strength, class_weight=weight, max_iter=1000, random_state=probe.random_state)


def as_sklearn(probe: LinearProbe) -> Any:
    """A fitted scikit-learn estimator with the probe's coefficients. Kinds without one of their own become a LinearSVC,
    which predicts by the sign or the largest score, as the probe does."""
    kind = {"mean-difference": "linear-svm", "pca+logistic": "logistic"}.get(probe.kind, probe.kind)
    out = solver(type(probe)(**{**probe.get_params(), "kind": kind}), probe.strength_)
    out.coef_, out.intercept_, out.n_features_in_ = probe.coef_, probe.intercept_, probe.n_features_in_
    if kind == "ridge":
        if probe.outputs_ == 1:
            out.coef_, out.intercept_ = probe.coef_[0], probe.intercept_[0]
        return out
    out.n_iter_, out.classes_ = np.array([1]), probe.classes_
    if kind == "ridge-classifier":
        out._label_binarizer = LabelBinarizer(pos_label=1, neg_label=-1).fit(probe.classes_)
    return out
