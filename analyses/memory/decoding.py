"""Can the hidden object be read from the tokens where it stands unseen? Cross-validated probes with their controls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.kit.attention_maths import Grid
from cos_interp.analyses.kit.tracks import Cell, pixel_frames, tracks
from cos_interp.interp.trajectory import Run
from cos_interp.probes import LinearProbe, out_of_fold
from cos_interp.tasks import Item, grid
from cos_interp.tasks.base import find

FOLDS = 5
PROBE = LinearProbe("logistic", strength=10.0, balanced=False)  # a penalty that suits some hundred samples; never chosen
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


def cross_validated(features: np.ndarray, labels: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Which samples a logistic probe gets right when their whole item is left out of its training, bool ``[sample]``.

    ``features [sample, feature]``, ``labels [sample]``, ``items [sample]``. Empty when two folds cannot be made, or there is one
    label only.
    """
    _, counts = np.unique(labels, return_counts=True)
    folds = min(FOLDS, len(np.unique(items)), counts.max(initial=0))
    if folds < 2 or len(counts) < 2:
        return np.zeros(0, bool)
    return out_of_fold(PROBE, features, labels, items, folds) == labels


def per_item(right: np.ndarray, items: np.ndarray) -> dict[str, float]:
    """Accuracy of every item."""
    return {str(i): float(right[items == i].mean()) for i in dict.fromkeys(items)} if len(right) else {}
