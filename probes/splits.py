"""Splits and control labels: whole clips on one side, classes that are frequent enough, labels without meaning."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from cos_interp.probes.arrays import checked_groups, named, plain
from cos_interp.probes.asked import count
from cos_interp.probes.dataset import ProbeDataset
from cos_interp.probes.errors import ProbeError
from cos_interp.probes.targets import CLASSIFY

Split = tuple[np.ndarray, np.ndarray]


def usable_rows(data: ProbeDataset, target: str, folds: int, task: str | None = None) -> np.ndarray:
    """Rows with a label whose class occurs in at least ``folds`` clips: a rarer class cannot be in every training part.

    ProbeError for a single class, or fewer clips than folds.
    """
    folds, rows = count(folds, "folds", 2), data.rows(target, task)
    clips = np.unique(data.clip[rows])
    if len(clips) < folds:
        raise ProbeError(f"target {target!r} has labels in {len(clips)} clips, fewer than {folds} folds: take more clips")
    if data.targets[target].form != CLASSIFY:
        return rows
    labels = data.label(target)[rows]
    seen = {c: len(np.unique(data.clip[rows][labels == c])) for c in np.unique(labels)}
    kept = [c for c, n in seen.items() if n >= folds]
    if len(kept) < 2:
        raise ProbeError(
            f"target {target!r}: {len(kept)} class occurs in at least {folds} clips (clips by class: {_plain(seen)}), two are "
            "needed; take more clips, fewer folds, or another target"
        )
    return rows[np.isin(labels, kept)]


def _plain(counts: dict) -> dict[int, int]:
    return {int(k): int(v) for k, v in counts.items()}


def grouped(y: np.ndarray, clip: np.ndarray, folds: int, seed: int = 0) -> list[Split]:
    """Cross-validation splits that keep clips whole; balanced by class where the labels are classes."""
    folds, seed = count(folds, "folds", 2), count(seed, "seed", 0)
    y = np.asarray(plain(y))
    clip = checked_groups(clip, len(y))
    if len(np.unique(clip)) < folds:
        raise ProbeError(f"{len(np.unique(clip))} clips are fewer than {folds} folds: take more clips or fewer folds")
    if np.issubdtype(y.dtype, np.integer) and y.ndim == 1:
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    else:
        splitter = GroupKFold(folds, shuffle=True, random_state=seed)
    blank = np.zeros((len(y), 1))
    # balancing few clips of unlike classes can leave a fold without any
    return [(train, test) for train, test in splitter.split(blank, y, clip) if len(test)]


def shuffled(y: np.ndarray, clip: np.ndarray, seed: int = 0) -> np.ndarray:
    """Labels without meaning: permuted over all rows, or over clips where each clip has one label."""
    y = np.asarray(named(plain(y)))
    if not y.ndim:
        raise ProbeError(f"{y!r} was given: give the label of each row")
    clip, rng = checked_groups(clip, len(y)), np.random.default_rng([count(seed, "seed", 0), 1])
    clips, first, index = np.unique(clip, return_index=True, return_inverse=True)
    if y.ndim == 1 and (y[first][index] == y).all():
        return y[first][rng.permutation(len(clips))][index]
    return y[rng.permutation(len(y))]


def control_labels(y: np.ndarray, position: np.ndarray, seed: int = 0) -> np.ndarray:
    """The control task of Hewitt & Liang (2019): every token type, here the position, gets one random label, drawn as the
    labels are distributed. A probe can learn it only by telling positions apart; ``score - this`` is the selectivity."""
    rng = np.random.default_rng([seed, 2])
    _, index = np.unique(position, axis=0, return_inverse=True)
    index = index.reshape(-1)
    drawn = y[rng.choice(len(y), index.max() + 1)]
    if y.ndim == 1 and np.issubdtype(y.dtype, np.integer):
        classes = np.unique(y)
        missing = [c for c in classes if c not in drawn]
        for place, c in zip(rng.permutation(len(drawn)), missing, strict=False):
            drawn[place] = c
    return drawn[index]
