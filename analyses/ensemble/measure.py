"""Does merging several seeds help (CoS section 6)? Paired on the same items, against the same seeds alone and the same compute.

The paper reports 0.685 -> 0.716 on VBVR-Bench without its recipe; every choice is a setting here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.kept import Clip, kept
from cos_interp.analyses.driver.statistics import distance
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.ensemble import EnsembleConfig, EnsembleFacts
from cos_interp.analyses.ensemble.merging import Merged, merged, recipes
from cos_interp.analyses.kit.problems import Problem, arguments, each_problem, fits, generate, strict
from cos_interp.analyses.kit.screening import best_of, voted
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.tasks import Verdict
from cos_interp.tasks.scorer import answer_of

SINGLE = "single run"
Judged = tuple[Row, np.ndarray | None]  # a row, and a video that it is about


def check(config: EnsembleConfig, model: HookedVideoPipeline) -> None:
    fits(config, model)
    for recipe in recipes(config).values():
        if recipe is not None:
            recipe.names(model.layers)


def compute(members: int, merged_steps: tuple[int, ...], steps: int) -> float:
    """Cost in whole runs: all members up to the last merged step, then one.

    >>> compute(3, (0,), 20)
    1.1
    """
    last = max(merged_steps)
    return (members * (last + 1) + steps - last - 1) / steps


def majority(verdicts: list[Verdict]) -> bool:
    """Whether the readable answer that most runs give is right; of answers with equal counts the first one stands."""
    return voted([(answer_of(verdict), verdict.solved) for verdict in verdicts])


def measure(model: HookedVideoPipeline, config: EnsembleConfig, problem: Problem) -> Unit:
    """Rows of every ensemble of the problem: each repeat has seeds of its own."""
    rows: list[Row] = []
    clips: list[Clip] = []
    for repeat in range(config.repeats):
        for row, clip in _ensembles(model, config, problem, repeat):
            if repeat == 0 and clip is not None and problem.kept(clip.nbytes):
                clips.append((row["method"], len(rows), clip))
            rows.append({**problem.facts, "repeat": repeat, **row})
    tensors, kept_of = kept(clips)
    return Unit(rows, tensors, EnsembleFacts(prompt=problem.call["prompt"], **kept_of))


def _ensembles(model: HookedVideoPipeline, config: EnsembleConfig, problem: Problem, repeat: int) -> Iterator[Judged]:
    seeds = [problem.noise(repeat * config.seeds + n) for n in range(config.seeds)]
    runs = [generate(model, config, problem, seed) for seed in seeds]
    call = {k: v for k, v in arguments(model, config, problem).items() if k != "seed"}
    alone = [run.decode()[0] for run in runs] if problem.judged else []
    verdicts = strict(problem, alone)
    if verdicts is not None:
        yield from ((row, alone[0] if row["method"] == SINGLE else None) for row in _baselines(config, verdicts))
    for tensor, recipe in recipes(config).items():
        found = merged(model, recipe, config, runs, seeds, call)
        cost = float(config.seeds) if recipe is None else compute(config.seeds, config.steps, config.num_inference_steps)
        moved = distance(found.ensemble, runs[0].latents)
        for row, clip in _compared(model, problem, tensor, found, cost, moved):
            yield {**row, "tensor": tensor}, clip


def _compared(
    model: HookedVideoPipeline, problem: Problem, tensor: str, found: Merged, cost: float, moved: float
) -> list[Judged]:
    """The ensemble and its control, ``solved`` as the mean over its members, and the first clip. None without a verifier."""
    made = (
        ({"method": f"ensemble of {tensor}", "compute": cost, "distance": moved}, found.ensemble),
        ({"method": f"one seed, {tensor} scaled", "compute": 1.0, "distance": None}, found.scaled),
    )
    out: list[Judged] = []
    for row, latents in made:
        clips = model.decode(latents) if problem.judged else None
        verdicts = None if clips is None else strict(problem, clips)
        solved = None if verdicts is None else sum(v.solved for v in verdicts) / len(verdicts)
        out.append(({**row, "solved": solved}, None if clips is None else clips[0]))
    return out


def _baselines(config: EnsembleConfig, verdicts: list[Verdict]) -> list[Row]:
    solved, count = [v.solved for v in verdicts], len(verdicts)
    equal = compute(config.seeds, config.steps, config.num_inference_steps)
    return [
        {"method": SINGLE, "solved": float(solved[0]), "compute": 1.0},
        {"method": "mean of single runs", "solved": sum(solved) / count, "compute": 1.0},
        {"method": "best of equal compute", "solved": best_of(solved, equal), "compute": equal},
        {"method": f"majority of {count}", "solved": float(majority(verdicts)), "compute": float(count)},
        {"method": f"best of {count}", "solved": float(any(solved)), "compute": float(count)},
    ]


pieces = each_problem
work = each_unit(measure)
