"""Many activations or states in two dimensions: PCA and UMAP, each the same for the same numbers."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import pairwise_distances

from cos_interp.probes.arrays import matrix
from cos_interp.probes.asked import count
from cos_interp.probes.dataset import ProbeDataset
from cos_interp.probes.errors import ProbeError
from cos_interp.probes.solvers import standard

METHODS = ("pca", "umap")
POINTS = 1500
LEAST = 5  # points of UMAP
SMALL = 4096  # points below which UMAP takes all distances itself, each by a call
SEED = 0  # of UMAP, and of the tokens that are shown


def pca(points: Any, axes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates ``[point, axis]`` of ``[point, feature]`` along the first principal axes, and their shares of the variance.

    The sign of an axis is fixed by its largest entry, so that a map does not flip between machines.
    """
    points, axes = matrix(points, "points").astype(np.float64), count(axes, "axes", 1)
    if axes > points.shape[1]:
        raise ProbeError(f"axes={axes}: the points have {points.shape[1]} features, and no more axes than those")
    centred = points - points.mean(0)
    _, scale, directions = np.linalg.svd(centred, full_matrices=False)
    total = float((scale**2).sum())
    directions, scale = directions[:axes], scale[:axes]
    largest = np.abs(directions).argmax(1)
    directions = directions * np.sign(directions[np.arange(len(directions)), largest])[:, None]
    coordinates = np.zeros((len(points), axes))
    coordinates[:, : len(directions)] = centred @ directions.T
    share = np.zeros(axes)
    share[: len(scale)] = scale**2 / total if total else 0.0
    return coordinates, share


def umap(points: np.ndarray, neighbours: int = 15) -> np.ndarray:
    """UMAP coordinates ``[point, 2]`` (McInnes 2018) of ``[point, feature]``, from a fixed seed; needs more than 4 points."""
    points, neighbours = matrix(points, "points"), count(neighbours, "neighbours", 2)
    if len(points) < LEAST:
        raise ProbeError(f"{len(points)} points were given: a map of neighbours needs {LEAST} at least")
    with warnings.catch_warnings(), _threads_kept():
        warnings.simplefilter("ignore")  # that a fixed seed means one thread, and of numba's own compilation
        from umap import UMAP

        few = len(points) <= 12  # the spectral start needs more points than its eigenvectors
        start = "random" if few else "spectral"
        near = max(2, min(neighbours, len(points) - 1))
        given, metric = points.astype(np.float32), "euclidean"
        if len(points) < SMALL:
            given, metric = pairwise_distances(given), "precomputed"
        return UMAP(n_neighbors=near, random_state=SEED, init=start, n_jobs=1, metric=metric).fit_transform(given)


@contextlib.contextmanager
def _threads_kept() -> Iterator[None]:
    """torch's number of threads, on which its rounding depends, is the same after the block: numba raises it for the process."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def shown_rows(data: ProbeDataset, target: str, points: int = POINTS) -> np.ndarray:
    """The tokens of a view, rows of the data set: those that have a label, at most ``points`` of them, the same in every view."""
    rows, points = data.rows(target), count(points, "points", 1)
    if len(rows) > points:
        rows = np.sort(np.random.default_rng(SEED).choice(rows, points, replace=False))
    return rows


def view(
    data: ProbeDataset,
    target: str,
    name: str,
    step: int,
    method: Literal["pca", "umap"] = "pca",
    points: int = POINTS,
) -> pd.DataFrame:
    """Columns ``x, y, label`` of at most ``points`` tokens that have a label; activations are standardised by unit before."""
    if method not in METHODS:
        raise ProbeError(f"unknown view {method!r}; there are {', '.join(METHODS)}")
    rows = shown_rows(data, target, points)
    X = data.storage.read(data.name_of(name=name), data.at(step), rows)
    mean, scale = standard(X, scale=True)
    flat = pca((X - mean) / scale)[0] if method == "pca" else umap((X - mean) / scale)
    labels = data.label(target)[rows]
    known = data.targets[target].names
    if labels.ndim == 2:
        labels = np.linalg.norm(labels, axis=1)
    elif np.issubdtype(labels.dtype, np.integer):
        labels = np.array([known[v] if v < len(known) else str(v) for v in labels])
    return pd.DataFrame({"x": flat[:, 0], "y": flat[:, 1], "label": labels})
