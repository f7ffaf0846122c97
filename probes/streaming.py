"""Probes on data that do not fit into memory: passes over batches, with scikit-learn's partial fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.decomposition import IncrementalPCA
from sklearn.linear_model import SGDClassifier
from sklearn.preprocessing import StandardScaler

from cos_interp.probes.arrays import in_range
from cos_interp.probes.asked import count
from cos_interp.probes.errors import ProbeError
from cos_interp.probes.estimator import LinearProbe
from cos_interp.probes.solvers import Affine, nearest_mean, raw_units

Batches = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]  # starts a new pass over (X, y)
EPOCHS = 10
LOSSES = {"logistic": "log_loss", "pca+logistic": "log_loss", "linear-svm": "hinge"}


def fit_stream(probe: LinearProbe, batches: Batches, epochs: int = EPOCHS) -> LinearProbe:
    """Fit ``probe`` over several passes of ``batches()``; its strength must be a number ("auto" counts as 1).

    Ridge, ridge-classifier and mean-difference are exact: they need sums only. Logistic, linear-svm and pca+logistic use
    stochastic gradients (and an incremental PCA), so their coefficients agree with the ordinary fit roughly.
    """
    probe.check_settings()
    epochs = count(epochs, "epochs", 1)
    strength = 1.0 if probe.strength == "auto" else float(probe.strength)
    scaler, counts, width, outputs = _first_pass(batches, probe)
    probe.strength_, probe.n_features_in_ = strength, width
    if probe.classifies:
        probe.classes_ = np.array(sorted(counts))
        if len(counts) < 2:
            raise ProbeError(f"the target has {len(counts)} class in the stream: nothing can be told apart; take more clips")
    else:
        probe.outputs_ = outputs
    scale = scaler.scale_ if probe.scale and probe.kind != "mean-difference" else np.ones(width)
    units = (scaler.mean_, scale)
    weights = _class_weights(probe, counts)
    if probe.kind == "mean-difference":
        found = _means(probe, batches, units)
    elif probe.kind.startswith("ridge"):
        found = _ridge(probe, batches, units, strength, weights)
    else:
        found = _gradients(probe, batches, units, strength, weights, sum(counts.values()), epochs)
    probe.coef_, probe.intercept_ = raw_units(Affine(*found, *units))
    return probe


def _first_pass(batches: Batches, probe: LinearProbe) -> tuple[StandardScaler, dict, int, int]:
    counts: dict[Any, int] = {}
    scaler, outputs = StandardScaler(), 1
    for X, y in batches():
        if not np.isfinite(X).all():
            raise ProbeError("activations in the stream hold NaN or inf: leave these clips out")
        scaler.partial_fit(in_range(X.astype(np.float64)))
        outputs = y.ndim
        if probe.classifies:
            for value, count in zip(*np.unique(y, return_counts=True), strict=True):
                counts[value.item()] = counts.get(value.item(), 0) + int(count)
    if not hasattr(scaler, "mean_"):
        raise ProbeError("the stream of batches is empty: no clip has labels for this target")
    return scaler, counts, len(scaler.mean_), outputs


def _class_weights(probe: LinearProbe, counts: dict) -> dict:
    total = sum(counts.values())
    return {c: total / (len(counts) * n) if probe.balanced else 1.0 for c, n in counts.items()}


def _scaled(batches: Batches, units: tuple[np.ndarray, np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for X, y in batches():
        yield (X.astype(np.float64) - units[0]) / units[1], y


def _means(probe: LinearProbe, batches: Batches, units: tuple) -> tuple[np.ndarray, np.ndarray]:
    sums, counts = np.zeros((len(probe.classes_), probe.n_features_in_)), np.zeros(len(probe.classes_))
    for Z, y in _scaled(batches, units):
        for i, c in enumerate(probe.classes_):
            sums[i] += Z[y == c].sum(0)
            counts[i] += (y == c).sum()
    return nearest_mean(sums / counts[:, None])


def _ridge(probe: LinearProbe, batches: Batches, units: tuple, strength: float, weights: dict) -> tuple[np.ndarray, np.ndarray]:
    """Ridge from second moments: centre by the weighted means, then ``(Z'WZ + strength) coef = Z'WY``."""
    total = 0.0
    sum_z = sum_y = gram = cross = np.zeros(())  # of the batches' shapes from the first one on
    for Z, y in _scaled(batches, units):
        Y = _coded(probe, y)
        w = np.array([weights[v] for v in y.tolist()]) if probe.classifies else np.ones(len(y))
        total, sum_z, sum_y = total + w.sum(), sum_z + w @ Z, sum_y + w @ Y
        gram, cross = gram + (Z * w[:, None]).T @ Z, cross + (Z * w[:, None]).T @ Y
    mean_z, mean_y = sum_z / total, sum_y / total
    gram = gram - total * np.outer(mean_z, mean_z)
    coef = np.linalg.solve(gram + strength * np.eye(len(gram)), cross - total * np.outer(mean_z, mean_y)).T
    return coef, mean_y - coef @ mean_z


def _coded(probe: LinearProbe, y: np.ndarray) -> np.ndarray:
    if not probe.classifies:
        return y.reshape(len(y), -1)
    coded = np.where(y[:, None] == probe.classes_, 1.0, -1.0)
    return coded[:, 1:] if coded.shape[1] == 2 else coded


def _gradients(
    probe: LinearProbe, batches: Batches, units: tuple, strength: float, weights: dict, rows: int, epochs: int
) -> tuple[np.ndarray, np.ndarray]:
    axes = _axes(probe, batches, units) if probe.kind == "pca+logistic" else None
    solver = SGDClassifier(
        loss=LOSSES[probe.kind], alpha=strength / rows, random_state=probe.random_state, average=True, class_weight=weights
    )
    for _ in range(epochs):
        for Z, y in _scaled(batches, units):
            order = np.random.default_rng(probe.random_state).permutation(len(y))
            solver.partial_fit((Z if axes is None else Z @ axes.T)[order], y[order], classes=probe.classes_)
    return (solver.coef_ if axes is None else solver.coef_ @ axes), solver.intercept_


def _axes(probe: LinearProbe, batches: Batches, units: tuple) -> np.ndarray:
    """Principal axes ``[component, d_model]``; the activations are centred already. Batches smaller than that are joined."""
    pca, waiting = IncrementalPCA(min(probe.components, probe.n_features_in_)), []
    for Z, _ in _scaled(batches, units):
        waiting.append(Z)
        if sum(map(len, waiting)) >= max(pca.n_components, 2):
            pca.partial_fit(np.concatenate(waiting))
            waiting = []
    if not hasattr(pca, "components_"):
        raise ProbeError(f"pca+logistic needs at least {pca.n_components} rows, or fewer components")
    return pca.components_
