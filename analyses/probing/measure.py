"""Which layer, at which step, knows what: linear probes with their guard rails (CoS section 5.1: the roles of layers).

Pieces of work in the order of the queue: clips are run and kept; probes are fitted step by step; then directions are moved
to other cells and tasks, and erased during fresh generations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch

from cos_interp.analyses.driver.experiment import Unit
from cos_interp.analyses.driver.facts import Facts
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.kit.problems import Problem, fits, problems
from cos_interp.analyses.probing import ProbesConfig, TransferFacts
from cos_interp.analyses.probing.data import collect_unit, dataset, hook_names, probe_of, steps_of, targets_of, used_tasks
from cos_interp.analyses.probing.use import used_unit
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.probes.dataset import ProbeDataset
from cos_interp.probes.errors import ProbeError
from cos_interp.probes.grid import ProbeGrid
from cos_interp.probes.transfer import all_cells, task_transfer, temporal_generalisation

Piece = tuple[str, Any]  # what to do, and for which problem, step or target


def clip_units(config: ProbesConfig) -> list[str]:
    return [f"clip-{p.name}" for p in problems(config)]


def step_units(config: ProbesConfig) -> list[str]:
    return [f"step-{s:03d}" for s in steps_of(config)]


def pieces(config: ProbesConfig) -> list[tuple[Piece, list[str]]]:
    found: list[tuple[Piece, list[str]]] = [(("clip", p), [f"clip-{p.name}"]) for p in problems(config)]
    found += [(("step", s), [f"step-{s:03d}"]) for s in steps_of(config)]
    for target in targets_of(config):
        found.append((("transfer", target.name), [f"transfer-{target.name}"]))
        found += [(("used", (target.name, task)), [f"used-{target.name}-{task}"]) for task in used_tasks(config, target)]
    return found


def needs(config: ProbesConfig, piece: Piece) -> list[str]:
    """Probes need all clips; what is made of the probes needs those of all steps."""
    clips = [] if piece[0] == "clip" else clip_units(config)
    return clips + (step_units(config) if piece[0] in ("transfer", "used") else [])


def work(model: HookedVideoPipeline, config: ProbesConfig, store: RunStore, piece: Piece) -> Iterator[str]:
    what, about = piece
    name = _named(what, about)
    if store.unit(name) is None:
        unit = _make(model, config, store, what, about)
        store.add_unit(name, unit.rows, unit.tensors, unit.facts)
    yield name


def _named(what: str, about: Any) -> str:
    """The unit of a piece."""
    if isinstance(about, Problem):
        return f"clip-{about.name}"
    if what == "step":
        return f"step-{about:03d}"
    return f"{what}-{about if what == 'transfer' else '-'.join(about)}"


def _make(model: HookedVideoPipeline, config: ProbesConfig, store: RunStore, what: str, about: Any) -> Unit:
    if what == "clip":
        return collect_unit(model, config, about)
    data = dataset(store, config, clip_units(config))
    if what == "step":
        return fit_step(config, data, about)
    scores = pd.DataFrame([row for unit in step_units(config) for row in store.finished(unit)[0]])
    if what == "transfer":
        return transfer_unit(config, data, about, scores)
    target, task = about
    return used_unit(model, config, store, data, target, task, scores)


def fit_step(config: ProbesConfig, data: ProbeDataset, step: int) -> Unit:
    """Probes of all targets at all layers of one step; a target that cannot be probed is left out, with the reason."""
    rows: list[Row] = []
    tensors, axes = {}, {}
    for target in targets_of(config):
        grid = ProbeGrid(target.name, probe_of(config, target).kind, config.folds, inner=1)
        try:
            grid.fit(data, steps=[step], refit=False)
        except ProbeError as error:
            rows.append({"table": "left out", "target": target.name, "step": step, "why": str(error)})
            continue
        rows += [{"table": "score", **row} for row in grid.scores.to_dict("records")]
        for kind, tallies in (("score", grid.tallies), ("control", grid.control_tallies)):
            key = f"{kind}.{target.name}"
            tensors[key] = torch.stack([torch.from_numpy(tallies[name, step]) for name in data.names], 1)
            axes[key] = ("clip", "layer", "true", "predicted")
    return Unit(rows, tensors, Facts(axes=axes))


def transfer_unit(config: ProbesConfig, data: ProbeDataset, target: str, scores: pd.DataFrame) -> Unit:
    """One fold of the matrix over all cells, and the best cell's probe on other tasks."""
    if "score" not in scores or not (found := scores[(scores.table == "score") & (scores.target == target)]).shape[0]:
        return Unit([])
    probe = probe_of(config, data.targets[target]).set_params(strength=10.0)  # not chosen: one of each cell, on scaled data
    matrix = temporal_generalisation(data, target, probe, folds=config.folds, used=1)
    best = found.loc[found.score.idxmax()]
    table = task_transfer(data, target, probe, [(best["name"], int(best.step))], config.folds)
    rows = [{"table": "task transfer", "target": target, **row} for row in table.to_dict("records")]
    facts = TransferFacts(axes={"matrix": ("train cell", "test cell")}, cells=tuple(all_cells(data)))
    return Unit(rows, {"matrix": torch.from_numpy(matrix)}, facts)


def check(config: ProbesConfig, model: HookedVideoPipeline) -> None:
    """Refuse layers, sites and targets that do not exist before anything runs."""
    fits(config, model)
    from cos_interp.probes.collect import token_names

    token_names(model, hook_names(config, model.layers))
    for target in targets_of(config):
        probe_of(config, target)
