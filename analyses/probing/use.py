"""Erase what probes read during fresh generations, and let the verifier judge."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cos_interp.analyses.driver.experiment import Unit
from cos_interp.analyses.kit.problems import Problem, arguments, problems, verdict_of
from cos_interp.analyses.probing import ProbesConfig
from cos_interp.analyses.probing.data import probe_of
from cos_interp.interp.hooking import EditFn
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.trajectory import Run
from cos_interp.probes.crossval import ask
from cos_interp.probes.dataset import ProbeDataset
from cos_interp.probes.use import by_step, edits_for, is_it_used

MOST = 125


def fresh_problems(config: ProbesConfig) -> list[Problem]:
    """Items that the probes were not trained on, as many a task as asked for and left."""
    wanted = config.model_copy(update={"items": min(MOST, config.items + config.used_items)})
    seen = {p.name for p in problems(config)}
    return [p for p in problems(wanted) if p.name not in seen]


def used_unit(model: HookedVideoPipeline, config: ProbesConfig, data: ProbeDataset, target: str, scores: pd.DataFrame) -> Unit:
    """Rows by clip and edit. The layer is the best one that has layers after it, which could read what is erased."""
    nothing = Unit([])
    if config.prompts is not None or config.used_items == 0 or "score" not in scores:
        return nothing
    found = scores[(scores.table == "score") & (scores.target == target)]
    found = found[found.layer < model.layers - 1] if len(found) else found
    chosen = [p for p in fresh_problems(config) if _has(data, target, p)]
    if found.empty or not chosen:
        return nothing
    best = found.loc[found.score.idxmax()]
    name = str(best["name"])

    def solved(i: int, run: Run) -> float:
        return float(verdict_of(chosen[i], run.decode()[0]).solved)

    rows = is_it_used(model, name, step_edits(config, data, target, name), [arguments(model, config, p) for p in chosen], solved)
    return Unit([{"table": "use", "target": target, "name": name, **chosen[r["clip"]].facts, **r} for r in rows])


def _has(data: ProbeDataset, target: str, problem: Problem) -> bool:
    tasks = data.targets[target].tasks
    return tasks is None or problem.task in tasks


def step_edits(config: ProbesConfig, data: ProbeDataset, target: str, name: str) -> dict[str, EditFn]:
    """The edits of a layer, each step with its own probe and its own LEACE."""
    question = ask(data, target, config.folds)
    probe = probe_of(config, data.targets[target]).set_params(strength=10.0)
    each: dict[str, dict[int, EditFn]] = {}
    for step in data.steps:
        X = np.asarray(data.storage.read(name, data.at(step), question.rows), np.float64)
        fitted = type(probe)(**probe.get_params()).fit(X, question.y, question.clip)
        for edit, function in edits_for(fitted, X, question.y).items():
            each.setdefault(edit, {})[step] = function
    return {edit: by_step(functions) for edit, functions in each.items()}
