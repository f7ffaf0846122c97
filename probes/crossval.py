"""Out-of-fold predictions of one probe, its controls, and baselines, as per-clip tallies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone

from cos_interp.probes.arrays import checked_groups, distinct, matrix, named, plain
from cos_interp.probes.asked import count
from cos_interp.probes.dataset import ProbeDataset
from cos_interp.probes.errors import ProbeError
from cos_interp.probes.estimator import LinearProbe, numeric
from cos_interp.probes.inputs import INPUTS
from cos_interp.probes.scoring import class_tally, value_tally
from cos_interp.probes.splits import Split, control_labels, grouped, shuffled, usable_rows
from cos_interp.probes.streaming import fit_stream
from cos_interp.probes.targets import CLASSIFY


@dataclass(frozen=True)
class Question:
    """One target on the rows that can be used, with its splits and its meaningless labels; the same at every layer and step."""

    target: str
    rows: np.ndarray
    y: np.ndarray
    clip: np.ndarray
    clips: np.ndarray
    classes: np.ndarray
    splits: list[Split]
    shuffled: np.ndarray
    control: np.ndarray

    @property
    def classifies(self) -> bool:
        return len(self.classes) > 0

    def tally(self, y: np.ndarray, predicted: np.ndarray, clip: np.ndarray) -> np.ndarray:
        """Per-clip tally over ``self.clips``; clips without a row count nothing."""
        if self.classifies:
            return class_tally(y, predicted, clip, self.clips, self.classes)
        return value_tally(y, predicted, clip, self.clips)


def ask(data: ProbeDataset, target: str, folds: int = 5, seed: int = 0, task: str | None = None) -> Question:
    """Set a question up. ProbeError for a target, a class or a number of clips that cannot be probed."""
    rows = usable_rows(data, target, folds, task)
    y, clip = data.label(target)[rows], data.clip[rows]
    classes = np.unique(y) if data.targets[target].form == CLASSIFY else np.array([])
    return Question(
        target, rows, y, clip, np.unique(clip), classes, grouped(y, clip, folds, seed), shuffled(y, clip, seed),
        control_labels(y, data.position[rows], seed),
    )  # fmt: skip


def fitting_kind(question: Question, probe: LinearProbe) -> LinearProbe:
    """The probe, refused where its kind does not fit the target."""
    if probe.classifies != question.classifies:
        need = "a classifying kind" if question.classifies else "kind='ridge'"
        raise ProbeError(f"target {question.target!r} needs {need}; the probe's kind is {probe.kind!r}")
    return probe


def out_of_fold(probe: LinearProbe, X: Any, y: Any, clip: Any, folds: int = 5, seed: int = 0) -> np.ndarray:
    """What a probe predicts for every row when the row's whole clip is left out of its training: ``X [row, d_model]``,
    ``y [row]``, ``clip [row]``. Copies of a clip under other names are left out with it. ProbeError for fewer clips than folds.

    That they are copies is seen from their rows and labels. Rows that say nothing but a place or a kind are not told from copies.
    """
    folds, X, y = count(folds, "folds", 2), matrix(X), np.asarray(named(plain(y)))
    y = y if probe.classifies else numeric(y).astype(np.float64)  # predictions of whole numbers are no whole numbers
    if y.shape[:1] != X.shape[:1]:
        raise ProbeError(f"{len(X)} rows of activations and labels of shape {y.shape} were given: give the label of each row")
    clip = checked_groups(clip, len(X))
    apart = distinct(X, y, clip)
    if (found := len(np.unique(apart))) < min(folds, len(np.unique(clip))):
        raise ProbeError(f"{len(np.unique(clip))} clips hold the rows of {found} only, fewer than {folds} folds: take more clips")
    return _predicted(probe, X, y, apart, grouped(y, apart, folds, seed))[0]


def _predicted(
    probe: LinearProbe, X: np.ndarray, y: np.ndarray, clip: np.ndarray, splits: list[Split], strengths: list[float] | None = None
) -> tuple[np.ndarray, list[float]]:
    """Out-of-fold predictions, and the penalty of each fold."""
    predicted, found = np.zeros_like(y), []
    for fold, (train, test) in enumerate(splits):
        made = clone(probe)
        if strengths is not None:
            made.set_params(strength=strengths[fold])
        if probe.classifies and len(np.unique(y[train])) < 2:
            predicted[test] = y[train][0]
            found.append(1.0)
            continue
        made.fit(X[train], y[train], clip[train])
        predicted[test] = made.predict(X[test])
        found.append(made.strength_)
    return predicted, found


def cross_tally(
    probe: LinearProbe,
    X: np.ndarray,
    question: Question,
    labels: np.ndarray | None = None,
    strengths: list[float] | None = None,
) -> tuple[np.ndarray, list[float]]:
    """Tally of out-of-fold predictions, and the penalty of each fold. ``strengths`` skips their choice (for controls)."""
    y = question.y if labels is None else labels
    predicted, found = _predicted(probe, X, y, question.clip, question.splits, strengths)
    return question.tally(y, predicted, question.clip), found


def stream_tally(
    probe: LinearProbe, data: ProbeDataset, question: Question, name: str, step: int
) -> tuple[np.ndarray, list[float]]:
    """As :func:`cross_tally` for activations that do not fit: fitted and predicted by batches."""
    predicted = np.zeros_like(question.y)
    size = max(256, int(data.storage.max_bytes / (4 * max(data.storage.cell_bytes(name) / len(data), 1))))
    for train, test in question.splits:
        batches = data.batches(question.target, name=name, step=step, rows=question.rows[train], size=size)
        made = fit_stream(clone(probe), batches)
        held = data.batches(question.target, name=name, step=step, rows=question.rows[test], size=size)
        predicted[test] = np.concatenate([made.predict(X) for X, _ in held()])
    return question.tally(question.y, predicted, question.clip), []


def majority(question: Question) -> np.ndarray:
    """Tally of always giving the training part's most frequent class, or its mean."""
    predicted = np.zeros_like(question.y)
    for train, test in question.splits:
        if question.classifies:
            values, counts = np.unique(question.y[train], return_counts=True)
            predicted[test] = values[counts.argmax()]
        else:
            predicted[test] = question.y[train].mean(0)
    return question.tally(question.y, predicted, question.clip)


def input_tallies(
    probe: LinearProbe, data: ProbeDataset, question: Question, step: int, kinds: Sequence[str] = INPUTS
) -> dict[str, np.ndarray]:
    """The same probe on what goes in at this step: x_t, the first frame's latent, the token's position."""
    found = {kind: data.input(kind, step, question.rows) for kind in kinds}
    return {kind: cross_tally(probe, X, question)[0] for kind, X in found.items() if X is not None}
