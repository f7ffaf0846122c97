"""Probes of one target at every layer and step, with everything that a score has to be compared with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from cos_interp.interp.address import layer_of
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.selecting import whole
from cos_interp.probes.asked import kept_names, kept_steps
from cos_interp.probes.collect import Progress
from cos_interp.probes.crossval import Question, ask, cross_tally, fitting_kind, input_tallies, majority, stream_tally
from cos_interp.probes.dataset import ProbeDataset, meant
from cos_interp.probes.errors import ProbeError
from cos_interp.probes.estimator import Kind, LinearProbe
from cos_interp.probes.persistence import Cell, load_probes, save_probes
from cos_interp.probes.scoring import draws, interval, resampled, score
from cos_interp.probes.streaming import fit_stream


class ProbeGrid:
    """``fit`` fills ``scores`` (one row a hook name and step), ``probes`` (fitted on all clips) and ``tallies`` (by clip).

    Scores are out of fold, clips kept whole: balanced accuracy (chance is 1 / classes) or R2. ``shuffled``: meaningless
    labels; ``control``: random labels by position, ``selectivity = score - control`` (Hewitt & Liang 2019); ``x_t``,
    ``first frame``, ``position``: the same probe on the inputs; ``low``, ``high``: 95 % bootstrap over clips.
    """

    def __init__(self, target: str, kind: Kind = "logistic", folds: int = 5, controls: bool = True, seed: int = 0, **probe: Any):
        self.target, self.kind, self.folds, self.controls, self.seed = target, kind, folds, controls, seed
        self.options = probe
        self.probe = LinearProbe(kind, random_state=seed, **probe)
        self.scores = pd.DataFrame()
        self.probes: dict[Cell, LinearProbe] = {}
        self.tallies: dict[Cell, np.ndarray] = {}
        self.control_tallies: dict[Cell, np.ndarray] = {}
        self.card: dict[str, Any] = {}

    def fit(
        self, data: ProbeDataset, *, names: str | Sequence[str] | None = None,
        steps: int | range | slice | Sequence[int] | str | None = None, refit: bool = True,
        progress: Progress = lambda done, total: None,
    ) -> ProbeGrid:  # fmt: skip
        """Cross-validate at every kept hook name and step (or some); ``refit`` also keeps a probe fitted on all clips."""
        self.probe.check_settings()
        names, steps = kept_names(names, data.names), kept_steps(steps, data.steps)
        question = ask(data, self.target, self.folds, self.seed)
        fitting_kind(question, self.probe)
        drawn = draws(len(question.clips), seed=self.seed)
        rows, total = [], len(names) * len(steps)
        fixed = {"majority": float(score(majority(question).sum(0)))}
        fixed |= self._inputs(data, question, steps[0], ("first frame", "position"))
        for i, step in enumerate(steps):
            inputs = self._inputs(data, question, step, ("x_t",)) | fixed
            for j, name in enumerate(names):
                progress(i * len(names) + j, total)
                rows.append(self._cell(data, question, (name, step), drawn, refit) | inputs)
        progress(total, total)
        self.scores = pd.DataFrame(rows).sort_values(["name", "step"], kind="stable", ignore_index=True)
        self.card = self._card(data, question)
        return self

    def _inputs(self, data: ProbeDataset, question: Question, step: int, kinds: Sequence[str]) -> dict[str, float]:
        return {k: float(score(t.sum(0))) for k, t in input_tallies(self.probe, data, question, step, kinds).items()}

    def _cell(self, data: ProbeDataset, question: Question, cell: Cell, drawn: np.ndarray, refit: bool) -> dict[str, Any]:
        name, step = cell
        streams = data.storage.streams(name)
        if streams:
            tally, strengths = stream_tally(self.probe, data, question, name, step)
        else:
            X = data.storage.read(name, data.at(step), question.rows)
            tally, strengths = cross_tally(self.probe, X, question)
        self.tallies[cell] = tally
        value, low, high = interval(tally, drawn)
        target = data.targets[self.target]
        row: dict[str, Any] = {
            "target": self.target, "family": target.family, "kind": self.kind, "name": name, "layer": layer_of(name),
            "step": step, "sigma": data.sigmas[data.at(step)], "score": value, "low": low, "high": high,
            "n_rows": len(question.rows), "n_clips": len(question.clips),
        }  # fmt: skip
        if self.controls and not streams:
            noise = cross_tally(self.probe, X, question, question.shuffled, strengths)[0]
            self.control_tallies[cell] = cross_tally(self.probe, X, question, question.control, strengths)[0]
            row |= {"shuffled": float(score(noise.sum(0))), "control": float(score(self.control_tallies[cell].sum(0)))}
            row["selectivity"] = value - row["control"]
        if refit:
            self.probes[cell] = self._refit(data, question, cell, streams)
        return row

    def _refit(self, data: ProbeDataset, question: Question, cell: Cell, streams: bool) -> LinearProbe:
        name, step = cell
        if streams:
            return fit_stream(clone(self.probe), data.batches(self.target, name=name, step=step, rows=question.rows))
        X = data.storage.read(name, data.at(step), question.rows)
        return clone(self.probe).fit(X, question.y, question.clip)

    def _card(self, data: ProbeDataset, question: Question) -> dict[str, Any]:
        target = data.targets[self.target]
        return {
            "target": {"name": target.name, "family": target.family, "about": target.about, "names": list(target.names)},
            "probe": {"kind": self.kind, "folds": self.folds, "seed": self.seed, **self.options},
            "data": {
                "clips": [data.clips[c] for c in question.clips], "rows": len(question.rows),
                "balance": data.balance(self.target), "grid": list(data.grid), "steps": len(data.steps),
            },
            "model": data.model,
        }  # fmt: skip

    # --- reading -----------------------------------------------------------------------------------------------

    def best(self) -> Cell:
        """Hook name and step of the highest score."""
        row = self._scored().loc[self.scores.score.idxmax()]
        return str(row["name"]), int(row["step"])

    def at(self, layer: int | None = None, step: int | None = None, name: str | None = None) -> LinearProbe:
        """The fitted probe of a layer (or hook name) and step; the best one without arguments."""
        if layer is None and step is None and name is None:
            return self.probes[self.best()]
        named = meant(dict.fromkeys(c[0] for c in self.probes), layer, name)
        found = [c for c in self.probes if c[0] in named and c[1] == whole(step)]
        if len(found) != 1:
            layers = sorted({layer_of(c[0]) for c in self.probes}, key=str)
            raise ProbeError(
                f"layer={layer!r}, step={step!r}, name={name!r} means {len(found)} probes; there are layers {layers}, steps "
                f"{sorted({c[1] for c in self.probes})}"
            )
        return self.probes[found[0]]

    def bootstrap(self) -> tuple[np.ndarray, list[Cell]]:
        """Resampled scores ``[resample, cell]`` with the same clips drawn for all cells, for paired comparisons."""
        if not self.tallies:
            raise ProbeError("this grid holds no tallies: call fit first (a saved grid has none)")
        cells = list(self.tallies)
        together = np.stack([self.tallies[c] for c in cells], 1)
        return resampled(together, draws(len(together), seed=self.seed)), cells

    def figure(self) -> Any:
        """Score by layer and step beside its baselines, a matplotlib figure."""
        from cos_interp.probes.figures import grid_figure

        return grid_figure(self._scored())

    def _scored(self) -> pd.DataFrame:
        if "score" not in self.scores or self.scores.score.isna().all():
            raise ProbeError("this grid has no scores: call fit first")
        return self.scores

    def save(self, folder: str | Path) -> Path:
        """Write ``probes.safetensors`` and ``card.json`` into a folder."""
        scores = json.loads(self.scores.to_json(orient="records"))
        return save_probes(Path(folder), self.probes, {**self.card, "scores": scores})

    @classmethod
    def load(cls, folder: str | Path, model: HookedVideoPipeline | None = None, force: bool = False) -> ProbeGrid:
        """Read a saved grid. With a ``model`` of other weights than the probes were trained on: refused unless ``force``."""
        probes, card = load_probes(Path(folder), model, force)
        grid = cls(card["target"]["name"], **card["probe"])
        grid.probes, grid.scores = probes, pd.DataFrame(card["scores"])
        held = grid.scores.columns.intersection(["score", "low", "high", "sigma"])
        grid.scores[held] = grid.scores[held].astype(float)  # None, which JSON has for NaN, is NaN again
        grid.card = {k: card[k] for k in ("target", "probe", "data", "model")}
        return grid
