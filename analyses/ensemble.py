"""Does merging several seeds help (CoS section 6)? Paired on the same items, against one seed and against the same compute.

The paper reports 0.685 -> 0.716 on VBVR-Bench without its recipe; every choice is a setting here.
"""

from __future__ import annotations

from collections import Counter

import pandas as pd

from cos_interp.analyses import pages
from cos_interp.analyses.base import AnalysisResult
from cos_interp.analyses.experiment import Experiment, Report, Unit, each_unit
from cos_interp.analyses.findings import Finding, decide
from cos_interp.analyses.problems import Problem, arguments, each_problem, generate, judge
from cos_interp.analyses.screening import best_of
from cos_interp.analyses.settings import EnsembleConfig
from cos_interp.analyses.statistics import by_item, distance, mean_number, paired
from cos_interp.analyses.store import Row, RunStore
from cos_interp.interp.ensemble import EnsembleRecipe, run_ensemble
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.reports.figures import bars
from cos_interp.tasks import Verdict


def recipes(config: EnsembleConfig) -> list[EnsembleRecipe]:
    return [EnsembleRecipe(tensor, config.steps, config.layers, config.combine) for tensor in config.tensors]


def check(config: EnsembleConfig, model: HookedVideoPipeline) -> None:
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
    verdicts = [judge(problem, run.decode()[0]) for run in runs]
    call = {k: v for k, v in arguments(model, config, problem).items() if k != "seed"}
    rows: list[Row] = []
    if problem.item is not None:
        rows += _baselines(config, verdicts)
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


def findings(rows: pd.DataFrame) -> list[Finding]:
    by = {method: part.set_index("problem").solved.astype(float) for method, part in rows.groupby("method", sort=False)}
    out = []
    for method in [m for m in by if m.startswith("ensemble")]:
        single = by["mean of single runs"]
        gain = paired(by[method], single)
        out.append(Finding(
            "A training-free ensemble of seeds improves the score, 0.685 to 0.716 (6)", decide(gain.low, gain.high),
            f"{method} solves {mean_number(by[method])}, single runs {mean_number(single)}; the paired gain is",
            gain, "gain over a perfect verifier's pick at equal compute", paired(by[method], by["best of equal compute"]),
            "the interval of the paired gain over single runs lies above 0",
        ))  # fmt: skip
    return out


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows, config = result.rows, result.config
    question = (
        "Several noises of one problem explore different candidates. Does merging them inside the model, before the plan is "
        "chosen, give a better answer than a single run, and than spending the same compute on independent runs?"
    )
    judged = rows[rows.solved.notna()]
    seeds, steps = config["seeds"], ", ".join(map(str, config["steps"]))
    notes = [f"{seeds} seeds, merged in steps {steps} ({config['combine']}); afterwards only the first seed goes on."]
    sections = []
    if judged.empty:
        notes.append("These problems have no verifier: only how far the result moves is shown.")
    else:
        sections = [
            pages.Section("Accuracy", _bars(judged), "Bars: 95 % bootstrap over items. Dashed: single runs.", _table(judged))
        ]
    moved = rows[rows.distance.notna()]
    spread = [
        {"method": m, "|result - single run| / |single run|": str(by_item(p, "distance"))} for m, p in moved.groupby("method")
    ]
    sections.append(pages.Section("How far the result moves", table=pd.DataFrame(spread)))
    found = [] if judged.empty else findings(judged)
    return pages.build(result, "Training-free ensemble", question, "CoS section 6", found, sections, notes)


def _bars(rows: pd.DataFrame) -> str:
    made = []
    for method, part in rows.groupby("method", sort=False):
        number = by_item(part, "solved")
        made.append({"name": method, "mean": number.value, "low": number.low, "high": number.high})
    table = pd.DataFrame(made)
    return bars(table, "solved", float(table[table.name == "mean of single runs"]["mean"].iloc[0]))


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    """By method and task: solved, cost, and the paired difference to the single runs."""
    out = []
    for method, part in rows.groupby("method", sort=False):
        row = {"method": method, "compute, runs": float(part["compute"].iloc[0]), "all": str(by_item(part, "solved"))}
        base = rows[rows.method == "mean of single runs"].set_index("problem").solved.astype(float)
        row["gain over single runs"] = str(paired(part.set_index("problem").solved.astype(float), base))
        row |= {str(task): str(by_item(at, "solved")) for task, at in part.groupby("task", sort=False)}
        out.append(row)
    return pd.DataFrame(out)


EXPERIMENT = Experiment("ensemble", EnsembleConfig, each_problem, each_unit(measure), report, check)
