"""Two-dimensional views of probed activations."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from cos_interp.probes.dataset import ProbeDataset
from cos_interp.probes.errors import ProbeError

METHODS = ("pca", "umap")
POINTS = 1500


def embed(X: np.ndarray, method: Literal["pca", "umap"] = "pca", seed: int = 0) -> np.ndarray:
    """``X [row, d_model]`` in two dimensions ``[row, 2]``, each unit standardised before."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    if method not in METHODS:
        raise ProbeError(f"unknown view {method!r}; there are {', '.join(METHODS)}")
    scaled = StandardScaler().fit_transform(X)
    if method == "pca":
        return PCA(2, random_state=seed).fit_transform(scaled)
    from umap import UMAP

    return UMAP(n_neighbors=min(15, len(X) - 1), random_state=seed, n_jobs=1).fit_transform(scaled)


def view(
    data: ProbeDataset,
    target: str,
    name: str,
    step: int,
    method: Literal["pca", "umap"] = "pca",
    points: int = POINTS,
    seed: int = 0,
) -> pd.DataFrame:
    """Columns ``x, y, label`` of at most ``points`` tokens that have a label."""
    rows = data.rows(target)
    if len(rows) > points:
        rows = np.sort(np.random.default_rng(seed).choice(rows, points, replace=False))
    flat = embed(data.storage.read(name, data.at(step), rows), method, seed)
    labels = data.label(target)[rows]
    known = data.targets[target].names
    if labels.ndim == 2:
        labels = np.linalg.norm(labels, axis=1)
    elif np.issubdtype(labels.dtype, np.integer):
        labels = np.array([known[v] if v < len(known) else str(v) for v in labels])
    return pd.DataFrame({"x": flat[:, 0], "y": flat[:, 1], "label": labels})
