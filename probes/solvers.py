"""The fits behind a probe: scikit-learn solvers, and their result as one affine map."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.preprocessing import LabelBinarizer
from sklearn.svm import LinearSVC

Kind = Literal["logistic", "ridge", "ridge-classifier", "mean-difference", "linear-svm", "pca+logistic"]


@dataclass(frozen=True)
class Recipe:
    """How a probe is fitted, its penalty aside. The fields are the parameters of :class:`LinearProbe`, which explains them."""

    kind: Kind
    scale: bool
    balanced: bool
    components: int
    random_state: int

    @property
    def classifies(self) -> bool:
        return self.kind != "ridge"


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
    mean = X.mean(0, dtype=np.float64)  # in the type of X the squares of small numbers vanish
    spread = X.std(0, dtype=np.float64) if scale else np.ones_like(mean)
    moves = spread > 1e-12 * np.abs(mean)
    return mean.astype(X.dtype), np.where(moves, spread, 1.0).astype(X.dtype)


def nearest_mean(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The linear map that names the nearest of the ``means [class, d_model]``; of two, their difference with the threshold
    halfway."""
    coef, intercept = 2 * means, -(means**2).sum(1)
    if len(means) == 2:
        return (coef[1:] - coef[:1]) / 2, (intercept[1:] - intercept[:1]) / 2
    return coef, intercept


def fit_affine(recipe: Recipe, X: np.ndarray, y: np.ndarray, strength: float) -> Affine:
    """Fit one probe with a fixed penalty. Scaling is estimated on these rows only."""
    X = X.astype(np.float64, copy=False)
    mean, scale = standard(X, recipe.scale and recipe.kind != "mean-difference")
    Z = (X - mean) / scale
    if recipe.kind == "mean-difference":
        return Affine(*nearest_mean(np.stack([Z[y == c].mean(0) for c in np.unique(y)])), mean, scale)
    if recipe.kind == "pca+logistic":
        pca = PCA(min(recipe.components, *Z.shape), random_state=recipe.random_state).fit(Z)
        inner = solver(recipe, strength).fit(pca.transform(Z), y)
        coef = inner.coef_ @ pca.components_
        return Affine(coef, inner.intercept_ - coef @ pca.mean_, mean, scale)
    inner = solver(recipe, strength).fit(Z, y)
    return Affine(np.atleast_2d(inner.coef_), np.atleast_1d(inner.intercept_), mean, scale)


def solver(recipe: Recipe, strength: float) -> Any:
    """The scikit-learn estimator of a kind, for scaled activations."""
    weight = "balanced" if recipe.balanced else None
    if recipe.kind == "ridge":
        return Ridge(alpha=strength)
    if recipe.kind == "ridge-classifier":
        return RidgeClassifier(alpha=strength, class_weight=weight)
    if recipe.kind == "linear-svm":
        return LinearSVC(C=1 / strength, class_weight=weight, dual="auto", random_state=recipe.random_state, max_iter=5000)
    return LogisticRegression(C=1 / strength, class_weight=weight, max_iter=1000, random_state=recipe.random_state)


# kinds without a scikit-learn estimator of their own, and the one that predicts as they do: by the sign or the largest score
EXPORTED: dict[Kind, Kind] = {"mean-difference": "linear-svm", "pca+logistic": "logistic"}


def as_classifier(recipe: Recipe, strength: float, coef: np.ndarray, intercept: np.ndarray, classes: np.ndarray) -> Any:
    """A fitted scikit-learn classifier with these coefficients ``[output, d_model]``."""
    out = solver(replace(recipe, kind=EXPORTED.get(recipe.kind, recipe.kind)), strength)
    out.coef_, out.intercept_, out.n_features_in_ = coef, intercept, coef.shape[1]
    out.n_iter_, out.classes_ = np.array([1]), classes
    if recipe.kind == "ridge-classifier":
        out._label_binarizer = LabelBinarizer(pos_label=1, neg_label=-1).fit(classes)
    return out


def as_regressor(recipe: Recipe, strength: float, coef: np.ndarray, intercept: np.ndarray, flat: bool) -> Any:
    """A fitted scikit-learn ridge with these coefficients; ``flat``: it predicts ``[row]`` and not ``[row, k]``."""
    out = solver(recipe, strength)
    out.coef_, out.intercept_ = (coef[0], intercept[0]) if flat else (coef, intercept)
    out.n_features_in_ = coef.shape[1]
    return out
