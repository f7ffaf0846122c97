"""Does what a probe learned hold elsewhere: at other layers and steps, on other tasks, with fewer clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.base import clone

from cos_interp.interp.address import layer_of
from cos_interp.probes.crossval import Question, ask, cross_tally, fitting_kind
from cos_interp.probes.dataset import ProbeDataset
from cos_interp.probes.errors import ProbeError
from cos_interp.probes.estimator import LinearProbe
from cos_interp.probes.persistence import Cell
from cos_interp.probes.scoring import class_tally, interval, score, value_tally


def all_cells(data: ProbeDataset) -> list[Cell]:
    return [(name, step) for name in data.names for step in data.steps]


def temporal_generalisation(
    data: ProbeDataset,
    target: str,
    probe: LinearProbe,
    cells: Sequence[Cell] | None = None,
    folds: int = 5,
    used: int | None = None,
) -> np.ndarray:
    """Train at one (hook name, step), test at another: scores ``[train cell, test cell]``, out of fold.

    The temporal generalisation matrix of King & Dehaene (2014), over layers as well. ``used``: only so many of the folds.
    Probes are moved without any adjustment, so the activations must have one width.
    """
    cells = all_cells(data) if cells is None else list(cells)
    if len({data.storage.arrays[name].shape[-1] for name, _ in cells}) > 1:
        raise ProbeError("the hook names have activations of different widths: compare names of one width only")
    question = ask(data, target, folds)
    fitting_kind(question, probe)
    tallies = []
    for train, test in question.splits[:used]:
        fitted = [_fit(clone(probe), data, question, cell, train) for cell in cells]
        tallies.append(np.stack([_column(fitted, data, question, cell, test) for cell in cells], 1))
    return score(np.sum(tallies, 0))


def _rows(data: ProbeDataset, question: Question, cell: Cell, part: np.ndarray) -> np.ndarray:
    return data.storage.read(cell[0], data.at(cell[1]), question.rows[part])


def _fit(probe: LinearProbe, data: ProbeDataset, question: Question, cell: Cell, part: np.ndarray) -> LinearProbe:
    return probe.fit(_rows(data, question, cell, part), question.y[part], question.clip[part])


def _column(fitted: list[LinearProbe], data: ProbeDataset, question: Question, cell: Cell, test: np.ndarray) -> np.ndarray:
    """Summed tallies ``[train cell, ...]`` of all probes on one cell's test rows."""
    X = _rows(data, question, cell, test)
    return np.stack([question.tally(question.y[test], probe.predict(X), question.clip[test]).sum(0) for probe in fitted])


def task_transfer(data: ProbeDataset, target: str, probe: LinearProbe, cells: Sequence[Cell], folds: int = 5) -> pd.DataFrame:
    """Train on all clips of one task, test on another: a row a (cell, train task, test task) with ``score, low, high, n_clips``.

    Within a task the score is out of fold. Only classes that both tasks have are tested; a pair with fewer than two is left out.
    """
    tasks = [t for t in dict.fromkeys(data.tasks.tolist()) if _probeable(data, target, folds, t)]
    questions = {t: ask(data, target, folds, task=t) for t in tasks}
    rows = []
    for cell in cells:
        everything = {t: np.arange(len(q.rows)) for t, q in questions.items()}
        fitted = {t: _fit(clone(probe), data, q, cell, everything[t]) for t, q in questions.items()}
        for a in tasks:
            for b in tasks:
                tally = _within(probe, data, questions[a], cell) if a == b else _across(fitted[a], data, questions[b], cell)
                if tally is None:
                    continue
                value, low, high = interval(tally)
                rows.append({"name": cell[0], "layer": layer_of(cell[0]), "step": cell[1], "train": a, "test": b,
                             "score": value, "low": low, "high": high, "n_clips": len(tally)})  # fmt: skip
    return pd.DataFrame(rows)


def _probeable(data: ProbeDataset, target: str, folds: int, task: str) -> bool:
    try:
        ask(data, target, folds, task=task)
    except ProbeError:
        return False
    return True


def _within(probe: LinearProbe, data: ProbeDataset, question: Question, cell: Cell) -> np.ndarray:
    return cross_tally(probe, _rows(data, question, cell, np.arange(len(question.rows))), question)[0]


def _across(fitted: LinearProbe, data: ProbeDataset, question: Question, cell: Cell) -> np.ndarray | None:
    known = np.isin(question.y, fitted.classes_) if question.classifies else np.ones(len(question.y), bool)
    if question.classifies and len(np.unique(question.y[known])) < 2:
        return None
    part = np.flatnonzero(known)
    y, clip = question.y[part], question.clip[part]
    predicted = fitted.predict(_rows(data, question, cell, part))
    if question.classifies:
        return class_tally(y, predicted, clip, np.unique(clip), np.union1d(question.classes, fitted.classes_))
    return value_tally(y, predicted, clip, np.unique(clip))


def sample_sizes(
    data: ProbeDataset,
    target: str,
    probe: LinearProbe,
    cell: Cell,
    sizes: Sequence[int] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Score by the number of training clips, tested on the same held-out clips: does the probe need more data?"""
    question = ask(data, target, folds, seed)
    smallest = min(len(np.unique(question.clip[train])) for train, _ in question.splits)
    sizes = sorted({max(2, round(smallest * s)) for s in (0.125, 0.25, 0.5, 0.75, 1)}) if sizes is None else list(sizes)
    if max(sizes) > smallest:
        raise ProbeError(f"{max(sizes)} training clips were asked for; the training parts have {smallest}")
    X = _rows(data, question, cell, np.arange(len(question.rows)))
    out = []
    for size in sizes:
        predicted, answered = np.zeros_like(question.y), np.zeros(len(question.y), bool)
        for fold, (train, test) in enumerate(question.splits):
            clips = np.random.default_rng([seed, fold]).permutation(np.unique(question.clip[train]))[:size]
            part = train[np.isin(question.clip[train], clips)]
            if question.classifies and len(np.unique(question.y[part])) < 2:
                continue
            predicted[test] = clone(probe).fit(X[part], question.y[part], question.clip[part]).predict(X[test])
            answered[test] = True
        if answered.any():
            tally = question.tally(question.y[answered], predicted[answered], question.clip[answered])
            value, low, high = interval(tally)
            out.append({"clips": size, "mean": value, "low": low, "high": high, "n": len(tally)})
    return pd.DataFrame(out)
