"""Does merging several seeds help (CoS section 6)? Paired on the same items, against one seed and against the same compute.

The paper reports 0.685 -> 0.716 on VBVR-Bench without its recipe; every choice is a setting here.
"""

from __future__ import annotations

from collections import Counter

from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.statistics import distance
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.ensemble import EnsembleConfig
from cos_interp.analyses.kit.problems import Problem, arguments, each_problem, fits, generate, judge, verdict_of
from cos_interp.analyses.kit.screening import best_of
from cos_interp.interp.ensemble import EnsembleRecipe, run_ensemble
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.tasks import Verdict


def recipes(config: EnsembleConfig) -> list[EnsembleRecipe]:
    return [EnsembleRecipe(tensor, config.steps, config.layers, config.combine) for tensor in config.tensors]


def check(config: EnsembleConfig, model: HookedVideoPipeline) -> None:
    fits(config, model)
    for recipe in recipes(config):
        recipe.names(model.layers)


def compute(members: int, merged: tuple[int, ...], steps: int) -> float:
    """Cost in whole runs: all members up to the last merged step, then one.

    >>> compute(3, (0,), 20)
    1.1
    """
    last = max(merged)
    return (members * (last + 1) + steps - last - 1) / steps


def majority(verdicts: list[Verdict]) -> bool:
    """Whether the readable answer that most runs give is right; of answers with equal counts the first one stands."""
    readable = [v for v in verdicts if v.status != "undecided"]
    if not readable:
        return False
    answer = Counter(v.answer for v in readable).most_common(1)[0][0]
    return any(v.solved for v in readable if v.answer == answer)


def measure(model: HookedVideoPipeline, config: EnsembleConfig, problem: Problem) -> Unit:
    seeds = [problem.noise(n) for n in range(config.seeds)]
    runs = [generate(model, config, problem, seed) for seed in seeds]
    call = {k: v for k, v in arguments(model, config, problem).items() if k != "seed"}
    rows: list[Row] = []
    if problem.item is not None:
        rows += _baselines(config, [verdict_of(problem, run.decode()[0]) for run in runs])
    for recipe in recipes(config):
        run = run_ensemble(model, recipe, seeds, **call)
        verdict = judge(problem, run.decode()[0])
        moved = distance(run.latents[:1], runs[0].latents)
        row = {"method": f"ensemble of {recipe.tensor}", "tensor": recipe.tensor, "distance": moved}
        row |= {"compute": compute(config.seeds, config.steps, config.num_inference_steps)}
        rows.append({**row, "solved": None if verdict is None else float(verdict.solved)})
    return Unit([{**problem.facts, **row} for row in rows])


def _baselines(config: EnsembleConfig, verdicts: list[Verdict]) -> list[Row]:
    solved, count = [v.solved for v in verdicts], len(verdicts)
    equal = compute(config.seeds, config.steps, config.num_inference_steps)
    return [
        {"method": "single run", "solved": float(solved[0]), "compute": 1.0},
        {"method": "mean of single runs", "solved": sum(solved) / count, "compute": 1.0},
        {"method": "best of equal compute", "solved": best_of(solved, equal), "compute": equal},
        {"method": f"majority of {count}", "solved": float(majority(verdicts)), "compute": float(count)},
        {"method": f"best of {count}", "solved": float(any(solved)), "compute": float(count)},
    ]


pieces = each_problem
work = each_unit(measure)
