"""Can the hidden object be read from the tokens where it stands unseen, by a reader that has seen visible objects only?

A reader that learns from hidden objects may learn what goes with them: the cover, the place, the scene. This one learns what an
object looks like in the tokens where it is in sight, and is asked where nothing is in sight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor

from cos_interp.analyses.kit.attention_maths import Grid
from cos_interp.analyses.kit.tracks import Cell, Track, pixel_frames, track_of, tracks
from cos_interp.interp.trajectory import Run
from cos_interp.probes import LinearProbe
from cos_interp.probes.splits import grouped
from cos_interp.tasks import Item, grid
from cos_interp.tasks.base import find

FOLDS = 5
PROBE = LinearProbe("logistic", strength=10.0, balanced=False)  # a penalty that suits some hundred samples; never chosen
KINDS = ("visible", "hidden", "bare")
BARE = 3  # covered cells that hide nothing, for each hidden object


@dataclass(frozen=True)
class Point:
    """A token to read: latent frame, cell, a class, and its kind. ``visible``: that class is in sight there; ``hidden``: it
    stands there out of sight; ``bare``: as covered, and hides nothing, while the class is hidden elsewhere in the frame."""

    frame: int
    cell: Cell
    label: int
    kind: str


def probe_points(item: Item, shape: Grid, rng: np.random.Generator) -> list[Point]:
    """The points of an item in all latent frames but the first, which is given. Out of sight: in every pixel frame of it.

    Items that hide nothing have visible points, from which a reader learns, too; none where no object of a class is in the scene.
    """
    scene = [track_of(item, name) for name in grid.OBJECTS if (item.cells[0] == grid.CLASS_ID[name]).any()]
    out = []
    for frame in range(1, shape[0]):
        inside = pixel_frames(frame, shape[0])
        out += [Point(frame, t.cells[inside[-1]], t.classes[0], "visible") for t in scene if all(t.seen[p] for p in inside)]
        gone = [t for t in tracks(item) if not any(t.seen[p] for p in inside)]
        bare = _bare(item, inside, gone)
        for track in gone:
            drawn = rng.permutation(len(bare))[:BARE]
            out.append(Point(frame, track.cells[inside[-1]], track.classes[0], "hidden"))
            out += [Point(frame, bare[i], track.classes[0], "bare") for i in drawn]
    return out


def _bare(item: Item, inside: list[int], gone: list[Track]) -> list[Cell]:
    """Cells that are covered all the time and at which none of the hidden objects stands at any time."""
    covered = [find(item.cells[p], [grid.BOARD, grid.WALL]) for p in inside]
    taken = {track.cells[p] for track in gone for p in inside}
    return [cell for cell in covered[-1] if all(cell in c for c in covered) and cell not in taken]


def token_of(point: Point, shape: Grid) -> tuple[int, int, int]:
    """Frame, row and column of the first token in a point's cell."""
    _, rows, cols = shape
    return point.frame, -(-point.cell[0] * rows // grid.ROWS), -(-point.cell[1] * cols // grid.COLS)


def x_t_features(run: Run, step: int, points: list[Point], shape: Grid) -> Tensor:
    """The noisy latent itself at the points, ``[point, features]``: what a reader can read without the model."""
    x = run.x_t[step][0]
    high, wide = x.shape[2] // shape[1], x.shape[3] // shape[2]
    picked = []
    for point in points:
        frame, row, col = token_of(point, shape)
        picked.append(x[:, frame, row * high : (row + 1) * high, col * wide : (col + 1) * wide].flatten())
    return torch.stack(picked) if picked else torch.zeros(0, x.shape[0] * high * wide)


def read_out(features: np.ndarray, labels: np.ndarray, items: np.ndarray, learnt: np.ndarray) -> np.ndarray | None:
    """What a logistic reader names every sample when its whole item is left out, ``[sample]``, learning from the samples
    ``learnt`` (bool) of the other items. ``features [sample, feature]``, ``labels [sample]``, ``items [sample]``.

    None when two folds cannot be made, or where there is but one class to learn.
    """
    folds = min(FOLDS, len(np.unique(items)))
    if folds < 2:
        return None
    named = np.full(len(labels), -1)
    for train, test in grouped(np.zeros(len(items)), items, folds):  # by items alone, whatever the reader is taught
        train = train[learnt[train]]
        if len(np.unique(labels[train])) < 2:
            return None
        named[test] = clone(PROBE).fit(features[train], labels[train]).predict(features[test])
    return named
