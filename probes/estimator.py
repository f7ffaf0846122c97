"""One linear probe as a scikit-learn estimator: fitted by scikit-learn, kept as one affine map of raw activations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any, get_args

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.utils import ClassifierTags, RegressorTags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, column_or_1d, validate_data

from cos_interp.probes.arrays import checked_groups, finite, in_range, named, plain
from cos_interp.probes.asked import count, random_state
from cos_interp.probes.errors import ProbeError
from cos_interp.probes.solvers import Kind, Recipe, as_classifier, as_regressor, fit_affine, raw_units
from cos_interp.probes.strength import LEAST, choose

KINDS: tuple[Kind, ...] = get_args(Kind)


def _has_probabilities(probe: LinearProbe) -> bool:
    return probe.kind in ("logistic", "pca+logistic")


class UnfittedError(ProbeError, NotFittedError):
    """A probe that was asked before it was fitted."""


@contextmanager
def _in_words() -> Iterator[None]:
    """What scikit-learn says of arrays is clear, and is a ProbeError too."""
    try:
        yield
    except ProbeError:
        raise
    except ValueError as error:
        raise ProbeError(str(error)) from error


def one_a_row(y: Any) -> np.ndarray:
    """Classes ``[row]``. ProbeError for another shape, and for missing or mixed ones."""
    with _in_words():
        return column_or_1d(named(y), warn=True)


def numeric(y: Any) -> np.ndarray:
    """Values ``[row]`` or ``[row, k]``. ProbeError for what is no finite number."""
    with _in_words():
        return check_array(y, ensure_2d=False, dtype="numeric", input_name="y")


class LinearProbe(BaseEstimator):
    """A linear probe ``scores = X @ coef_.T + intercept_`` on raw activations (scaling and PCA are folded in).

    ``kind``: logistic, ridge (regression), ridge-classifier, mean-difference (nearest class mean, no scaling: the direction
    is the raw difference of means, Marks & Tegmark 2023), linear-svm, pca+logistic. ``strength``: the L2 penalty (C = 1 /
    strength), or "auto": the best of four on ``inner`` splits of the training data, by groups where ``fit`` gets them; 1 where
    there are fewer than 8 rows, or groups, to split (``fit`` warns of that, ``strength_`` holds what was taken).
    ``scale``: divide by the training standard deviation. ``balanced``: weigh classes inversely to their frequency.
    ``components``: axes of the PCA.
    """

    def __init__(
        self, kind: Kind = "logistic", *, strength: float | str = "auto", scale: bool = True, balanced: bool = True,
        components: int = 32, inner: int = 3, random_state: int = 0,
    ) -> None:  # fmt: skip
        self.kind = kind
        self.strength = strength
        self.scale = scale
        self.balanced = balanced
        self.components = components
        self.inner = inner
        self.random_state = random_state

    @property
    def recipe(self) -> Recipe:
        """What the solvers need to know."""
        return Recipe(self.kind, self.scale, self.balanced, self.components, self.random_state)

    @property
    def classifies(self) -> bool:
        """Whether it predicts classes, and not values."""
        return self.recipe.classifies

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        if self.classifies:
            tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        else:
            tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
            tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, groups: Any = None) -> LinearProbe:
        """``X [row, d_model]``, ``y [row]`` (for ridge also ``[row, k]``), ``groups [row]``: clips, kept together when the
        penalty is chosen, as they are given. ProbeError for a single class, an unknown kind, activations that are NaN or whose
        squares overflow or vanish."""
        self.check_settings()
        X = in_range(self._activations(X, reset=True))
        y = self._targets(X, plain(y))
        groups = None if groups is None else checked_groups(groups, len(X))
        auto = self.strength == "auto"
        if auto and groups is not None and self.kind != "mean-difference" and len(np.unique(groups)) < 2:
            raise ProbeError(
                f"all {len(X)} rows are of one clip ({groups[0]!r} in groups), so none can be held out for strength='auto': "
                "give the clip of each row, or a strength like 1.0"
            )
        if auto and self.kind != "mean-difference" and (held := len(X if groups is None else np.unique(groups))) < LEAST:
            what = "rows" if groups is None else "clips"
            warnings.warn(f"strength='auto' needs {LEAST} {what} to choose on, {held} were given: 1.0 is taken", stacklevel=2)
        self.strength_ = choose(self.recipe, X, y, groups, self.inner) if auto else float(self.strength)
        self.coef_, self.intercept_ = raw_units(fit_affine(self.recipe, X, y, self.strength_))
        return self

    def check_settings(self) -> None:
        """ProbeError for a parameter that means nothing."""
        if self.kind not in KINDS:
            raise ProbeError(f"unknown kind of probe {self.kind!r}; there are {', '.join(KINDS)}")
        given = self.strength
        if given != "auto" and (isinstance(given, bool | str) or not isinstance(given, Real) or not 0 < given < np.inf):
            raise ProbeError(f"strength={given!r}: give a number above 0, or 'auto'")
        for name in ("scale", "balanced"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise ProbeError(f"{name}={getattr(self, name)!r}: give True or False")
        for name, least in (("inner", 1), ("components", 1)):
            count(getattr(self, name), name, least)
        random_state(self.random_state)

    def _targets(self, X: np.ndarray, y: Any) -> np.ndarray:
        if y is None:
            raise ProbeError("requires y to be passed, but the target y is None")
        if not self.classifies:
            y = in_range(numeric(y), "the target")
            self.outputs_ = y.ndim
        else:
            y = one_a_row(y)
            with _in_words():
                check_classification_targets(y)
            self.classes_ = np.unique(y)
            if len(self.classes_) < 2:
                raise ProbeError(
                    f"the target has 1 class only ({self.classes_[0]!r} in all {len(y)} rows): nothing can be told apart; take "
                    "more clips, other tokens, or another target"
                )
        if len(y) != len(X):
            raise ProbeError(f"{len(X)} rows of activations and {len(y)} labels were given: they must be the same number")
        return y

    def _activations(self, X: Any, reset: bool) -> np.ndarray:
        with _in_words():
            X = validate_data(self, plain(X), reset=reset, dtype=[np.float64, np.float32], order="C", ensure_all_finite=False)
        finite(X)
        return X

    def _fitted(self) -> None:
        if not hasattr(self, "coef_"):
            raise UnfittedError("this probe has learnt nothing yet: call fit(X, y) first")

    @available_if(lambda probe: probe.classifies)
    def decision_function(self, X: Any) -> np.ndarray:
        """Raw scores: ``[row]`` for two classes, else ``[row, class]``."""
        return self._scores(X)

    def _scores(self, X: Any) -> np.ndarray:
        self._fitted()
        X = self._activations(X, reset=False)
        # matrix kernels round by layout: one layout, so that a probe predicts the same bits wherever its coefficients came from
        coef = np.ascontiguousarray(self.coef_)
        with np.errstate(over="ignore", invalid="ignore"):  # said in words below
            scores = X @ coef.T + self.intercept_
        if not np.isfinite(scores).all():
            raise ProbeError("the scores overflow: these activations are in another unit than those that the probe was fitted on")
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X: Any) -> np.ndarray:
        """Classes, or values for ridge."""
        scores = self._scores(X)
        if not self.classifies:
            return scores.reshape(len(scores), -1) if self.outputs_ == 2 else scores
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]

    @available_if(_has_probabilities)
    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities ``[row, class]``; the logistic kinds only."""
        scores = self._scores(X)
        if scores.ndim == 1:
            scores = np.stack([np.zeros_like(scores), scores], 1)
        scores = np.exp(scores - scores.max(1, keepdims=True))
        return scores / scores.sum(1, keepdims=True)

    def score(self, X: Any, y: Any) -> float:
        """Balanced accuracy, or R2 for ridge. ProbeError for the R2 of values that are all the same, for classes that the probe
        does not know, and for labels that are not one a row."""
        self._fitted()
        y = plain(y)
        values = np.atleast_1d(np.asarray(y))
        if not self.classifies and (len(values) < 2 or (values == values[0]).all()):
            raise ProbeError(
                f"R2 is the share of a variance, and the target of {len(values)} row(s) has none: give rows with several values"
            )
        found, y = self.predict(X), one_a_row(y) if self.classifies else numeric(y)
        if len(y) != len(found) or y.size != found.size:
            raise ProbeError(f"labels of shape {y.shape} for predictions of shape {found.shape}: give the label of each row")
        if not self.classifies:
            return float(r2_score(y, found))
        if unknown := set(y.tolist()) - set(self.classes_.tolist()):
            raise ProbeError(f"the probe knows the classes {self.classes_.tolist()}, and not {sorted(unknown, key=str)[0]!r}")
        return float(balanced_accuracy_score(y, found))

    def direction(self, towards: Any = None) -> np.ndarray:
        """Unit vector ``[d_model]`` along which the score of a class rises, the second of two by default.

        Of ridge, that of an output by its number. ProbeError for one that the probe does not have.
        """
        self._fitted()
        known = self.classes_.tolist() if self.classifies else list(range(len(self.coef_)))
        if towards is None and len(self.coef_) == 1:
            towards = known[-1]
        if np.ndim(towards) or towards not in known:
            what = "class" if self.classifies else "output"
            raise ProbeError(f"direction towards which {what}? {towards!r} is none of {known}")
        place = known.index(towards)
        if len(self.coef_) == 1:
            row = -self.coef_[0] if place < len(known) - 1 else self.coef_[0]
        else:
            row = self.coef_[place] - self.coef_.mean(0) if self.classifies else self.coef_[place]
        return row / max(float(np.linalg.norm(row)), 1e-12)

    def basis(self) -> np.ndarray:
        """Orthonormal rows ``[rank, d_model]`` that span everything this probe reads."""
        self._fitted()
        rows = self.coef_ if len(self.coef_) == 1 else self.coef_ - self.coef_.mean(0)
        _, sizes, axes = np.linalg.svd(rows, full_matrices=False)
        return axes[sizes > 1e-8 * max(sizes[0], 1e-30)]

    def to_sklearn(self) -> Any:
        """The same map as a plain scikit-learn estimator."""
        self._fitted()
        if self.classifies:
            return as_classifier(self.recipe, self.strength_, self.coef_, self.intercept_, self.classes_)
        return as_regressor(self.recipe, self.strength_, self.coef_, self.intercept_, self.outputs_ == 1)
