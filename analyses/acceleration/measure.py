"""Which calls of which blocks may be saved without changing verified answers?

A map, on every second item: each layer in each span of steps is saved, and the final latent and the verdict are held against the
run itself. From it a schedule; on the other items it stands against one that saves whole steps, and random ones, of equal cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cos_interp.analyses.acceleration import AccelerationConfig, Method, ScheduleFacts
from cos_interp.analyses.acceleration.saving import Plan, saved_runs
from cos_interp.analyses.acceleration.schedules import Cell, budget, cells, chosen, random, uniform
from cos_interp.analyses.driver.experiment import Unit, from_others
from cos_interp.analyses.driver.facts import RunFacts
from cos_interp.analyses.driver.statistics import distance
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.kit import choice
from cos_interp.analyses.kit.choice import SCHEDULE, Piece, choosing
from cos_interp.analyses.kit.problems import Problem, arguments, fits, judge_latents, problems
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline

STAGE = "map"  # of the problems that choose
pieces, needs = partial(choice.pieces, stage=STAGE), partial(choice.needs, stage=STAGE)


def check(config: AccelerationConfig, model: HookedVideoPipeline) -> None:
    fits(config, model)
    if config.by not in config.methods:
        raise InterpError(f"--by {config.by}: the map has {', '.join(config.methods)}; name one of these, or add it to --methods")
    if len(problems(config)) < 2:
        raise InterpError(
            "one problem: a schedule is chosen on one half of the problems and tested on the other; give two or more"
        )


def interval_of(config: AccelerationConfig, method: Method) -> int | None:
    """Of so many steps one is computed; None where all calls of a cell are saved."""
    return config.interval if method == "cache" else None


def _made(model: HookedVideoPipeline, config: AccelerationConfig, store: RunStore, piece: Piece) -> Unit:
    if piece.problem is None:
        return Unit([], facts=_chosen(model, config, store))
    mapped = piece.stage == STAGE
    return (_mapped if mapped else _tested)(model, config, store, piece.problem)


def cells_of(config: AccelerationConfig, layers: int, branches: Sequence[str]) -> list[Cell]:
    """All cells of the map."""
    return cells(config.num_inference_steps, layers, branches, config.bands, config.interval)


def _mapped(model: HookedVideoPipeline, config: AccelerationConfig, store: RunStore, problem: Problem) -> Unit:
    run = model.run(**arguments(model, config, problem))
    found = [(m, cell) for m in config.methods for cell in cells_of(config, model.layers, run.branches)]
    plans = [Plan(m, frozenset(cell.calls(interval_of(config, m))), config.bits) for m, cell in found]
    columns: list[Row] = [
        {"stage": "map", "method": m, "first": cell.first, "last": cell.last, "band": cell.band, "layer": cell.layer,
         "branch": cell.branch, "calls": len(plan.calls)}
        for (m, cell), plan in zip(found, plans, strict=True)
    ]  # fmt: skip
    facts = RunFacts(sigmas=tuple(run.sigmas), prompt=problem.call["prompt"])
    return Unit(_held_against(model, config, problem, plans, columns), facts=facts)


def _chosen(model: HookedVideoPipeline, config: AccelerationConfig, store: RunStore) -> ScheduleFacts:
    """The schedules from the maps of all problems that choose."""
    rows = [row for piece in choosing(config, STAGE) for row in store.finished(piece.name)[0]]
    rows = [row for row in rows if row["method"] == config.by]
    branches = tuple(dict.fromkeys(str(row["branch"]) for row in rows))
    damage: dict[Cell, tuple[float, float]] = {}
    for cell in cells_of(config, model.layers, branches):
        here = [row for row in rows if (row["first"], row["layer"], row["branch"]) == (cell.first, cell.layer, cell.branch)]
        lost = [1 - row["kept"] for row in here if row["kept"] is not None]
        damage[cell] = (sum(lost) / max(1, len(lost)), sum(row["distance"] for row in here) / max(1, len(here)))
    interval, steps = interval_of(config, config.by), config.num_inference_steps
    pool = sum(len(cell.calls(interval)) for cell in damage)
    counts = {saving: budget(saving, steps, model.layers, len(branches), pool) for saving in config.savings}
    made = {saving: chosen(damage, interval, count) for saving, count in counts.items()}
    return ScheduleFacts(chosen=made, steps=steps, layers=model.layers, branches=branches)


def _tested(model: HookedVideoPipeline, config: AccelerationConfig, store: RunStore, problem: Problem) -> Unit:
    facts = store.finished(SCHEDULE)[1]
    assert isinstance(facts, ScheduleFacts)
    pool, interval = cells_of(config, facts.layers, facts.branches), interval_of(config, config.by)
    plans: list[Plan] = []
    columns: list[Row] = []
    for saving, calls in facts.chosen.items():
        named = {"chosen": calls, "uniform": uniform(facts.steps, facts.layers, facts.branches, len(calls))}
        for draw in range(config.draws):
            named[f"random {draw}"] = random(pool, interval, len(calls), seed_for("random schedule", *config.about, draw))
        for name, some in named.items():
            plans.append(Plan(config.by, frozenset(some), config.bits))
            columns.append({"stage": "test", "method": config.by, "schedule": name, "saving": saving, "calls": len(some)})
    return Unit(_held_against(model, config, problem, plans, columns))


def _held_against(
    model: HookedVideoPipeline, config: AccelerationConfig, problem: Problem, plans: Sequence[Plan], columns: Sequence[Row]
) -> list[Row]:
    """Rows with what was measured of each plan: ``distance`` of the final latent from the run's own, whose answer it gives."""
    call = arguments(model, config, problem)
    found = saved_runs(model, call, plans, config.batch)
    told = [judge_latents(model, problem, latent) for latent in found.split(1)]
    own = told[0]
    rows = []
    for column, latent, verdict in zip(columns, found[1:].split(1), told[1:], strict=True):
        row = {**problem.facts, **column, "distance": distance(latent, found[:1]), "kept": None, "solved": None}
        if own is not None and verdict is not None:
            row |= {"solved": float(verdict.solved), "solved_plain": float(own.solved)}
            row |= {"kept": float((verdict.status, verdict.answer) == (own.status, own.answer)) if own.solved else None}
        rows.append(row)
    return rows


work = from_others(_made)
