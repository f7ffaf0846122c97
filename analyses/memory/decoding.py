"""Can the hidden object be read from the tokens where it stands unseen? Cross-validated probes with their controls."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from cos_interp.analyses.kit.attention_maths import Grid
from cos_interp.analyses.kit.tracks import Cell, pixel_frames, tracks
from cos_interp.interp.trajectory import Run
from cos_interp.tasks import Item, grid
from cos_interp.tasks.base import find

FOLDS = 5
NOTHING = -1  # a covered cell that hides nothing


@dataclass(frozen=True)
class Point:
    """A covered token: latent frame, cell, and the class hidden there (``NOTHING``: none)."""

    frame: int
    cell: Cell
    label: int


def probe_points(item: Item, shape: Grid, rng: np.random.Generator) -> list[Point]:
    """Where objects are out of sight for a whole latent frame, and as many equally covered cells that hide nothing."""
    out = []
    for frame in range(1, shape[0]):
        inside = pixel_frames(frame, shape[0])
        hidden = {t.cells[inside[-1]]: t.classes[0] for t in tracks(item) if not any(t.seen[p] for p in inside)}
        out += [Point(frame, cell, label) for cell, label in hidden.items()]
        covered = [find(item.cells[p], [grid.BOARD, grid.WALL]) for p in inside]
        empty = [cell for cell in covered[-1] if all(cell in c for c in covered) and cell not in hidden]
        drawn = rng.permutation(len(empty))[: len(hidden)]
        out += [Point(frame, empty[i], NOTHING) for i in drawn]
    return out


def token_of(point: Point, shape: Grid) -> tuple[int, int, int]:
    """Frame, row and column of the first token in a point's cell."""
    _, rows, cols = shape
    return point.frame, -(-point.cell[0] * rows // grid.ROWS), -(-point.cell[1] * cols // grid.COLS)


def x_t_features(run: Run, step: int, points: list[Point], shape: Grid) -> Tensor:
    """The noisy latent itself at the points, ``[point, features]``: what a probe can read without the model."""
    x = run.x_t[step][0]
    high, wide = x.shape[2] // shape[1], x.shape[3] // shape[2]
    picked = []
    for point in points:
        frame, row, col = token_of(point, shape)
        picked.append(x[:, frame, row * high : (row + 1) * high, col * wide : (col + 1) * wide].flatten())
    return torch.stack(picked) if picked else torch.zeros(0, x.shape[0] * high * wide)


def cross_validated(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Which samples a logistic probe gets right when their whole group is left out of its training, bool ``[sample]``.

    ``features [sample, feature]``; folds never split a group (an item), so that no scene is seen in training and test.
    Empty when there are fewer groups than two or a single label.
    """
    count = min(FOLDS, len(set(groups)))
    if count < 2 or len(set(labels)) < 2:
        return np.zeros(0, bool)
    right = np.zeros(len(labels), bool)
    for train, test in GroupKFold(count).split(features, labels, groups):
        if len(set(labels[train])) < 2:
            right[test] = labels[test] == labels[train][0]
            continue
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            right[test] = probe.fit(features[train], labels[train]).predict(features[test]) == labels[test]
    return right


def shuffled(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """The control: the same labels in a random order."""
    return np.random.default_rng(seed).permutation(labels)


def per_group(right: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Accuracy of every group."""
    return {str(g): float(right[groups == g].mean()) for g in dict.fromkeys(groups)} if len(right) else {}
