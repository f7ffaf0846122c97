"""Which calls of which blocks may be saved without changing verified answers?

A map, on every second item: each layer in each span of steps is saved, and the final latent and the verdict are held against the
run itself. From it a schedule; on the other items it stands against one that saves whole steps, and random ones, of equal cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cos_interp.analyses.acceleration import (
    AccelerationConfig,
    MapFacts,
    Method,
    ScheduleFacts,
    Spans,
    TestedFacts,
    judged,
    places,
)
from cos_interp.analyses.acceleration.exported import held_modules, tells_branches
from cos_interp.analyses.acceleration.saving import Plan, saved_runs
from cos_interp.analyses.acceleration.schedules import Cell, budget, cells, chosen, random, spanned, uniform, within
from cos_interp.analyses.driver.experiment import Unit, from_others
from cos_interp.analyses.driver.kept import Clip, kept
from cos_interp.analyses.driver.statistics import distance
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.kit import choice
from cos_interp.analyses.kit.choice import SCHEDULE, Piece, choosing
from cos_interp.analyses.kit.problems import Problem, arguments, fits, judge, problems
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.trajectory import Run
from cos_interp.tasks import Verdict
from cos_interp.tasks.scorer import has_verdict, same_answer, solved_of

STAGE = "map"  # of the problems that choose
ASKED = "asked"  # the rows of what the user asks about
AS_IT_IS = "as it is"
SHOWN = {"chosen": "chosen", "uniform": "whole steps, evenly spread", "random 0": "random calls"}  # schedules, in words
pieces, needs = partial(choice.pieces, stage=STAGE), partial(choice.needs, stage=STAGE)


def check(config: AccelerationConfig, model: HookedVideoPipeline) -> None:
    fits(config, model)
    if config.by not in config.methods:
        raise InterpError(f"--by {config.by}: the map has {', '.join(config.methods)}; name one of these, or add it to --methods")
    for asked in config.asked:
        layers, steps = places(asked)
        if max(layers) >= model.layers or steps.stop > config.num_inference_steps:
            raise InterpError(
                f"--asked {asked}: {model.name} has layers 0 to {model.layers - 1}, and --num-steps says steps 0 to "
                f"{config.num_inference_steps - 1}"
            )
        if steps.stop == 1:
            raise InterpError(f"--asked {asked}: the first step is computed, since nothing is held before it: ask from 1 on")
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


def experts_of(run: Run) -> Spans:
    """Which expert ran at which steps of a run."""
    steps: dict[str, list[int]] = {}
    for call in run.calls:
        steps.setdefault(call.expert, []).append(call.step)
    return {expert: (some[0], some[-1] + 1) for expert, some in steps.items()}


def cells_of(config: AccelerationConfig, experts: Spans, layers: int, branches: Sequence[str]) -> list[Cell]:
    """All cells of the map."""
    return cells([range(*span) for span in experts.values()], layers, branches, config.bands, config.interval)


def _asked(config: AccelerationConfig, experts: Spans, branches: Sequence[str]) -> tuple[list[Plan], list[Row]]:
    """What the user asks about, by each method, and the columns of its rows: all of its calls together."""
    plans, columns = list[Plan](), list[Row]()
    for asked in config.asked:
        layers, steps = places(asked)
        found = within([range(*span) for span in experts.values()], layers, branches, steps)
        for method in config.methods:
            calls = frozenset(call for cell in found for call in cell.calls(interval_of(config, method)))
            plans.append(Plan(method, calls, config.bits))
            columns.append({"stage": ASKED, "method": method, "asked": asked, "calls": len(calls)})
    return plans, columns


def _mapped(model: HookedVideoPipeline, config: AccelerationConfig, store: RunStore, problem: Problem) -> Unit:
    run = model.run(**arguments(model, config, problem))
    experts = experts_of(run)
    found = [(m, cell) for m in config.methods for cell in cells_of(config, experts, model.layers, run.branches)]
    plans = [Plan(m, frozenset(cell.calls(interval_of(config, m))), config.bits) for m, cell in found]
    columns: list[Row] = [
        {"stage": "map", "method": m, "first": cell.first, "last": cell.last, "band": cell.band, "layer": cell.layer,
         "branch": cell.branch, "calls": len(plan.calls)}
        for (m, cell), plan in zip(found, plans, strict=True)
    ]  # fmt: skip
    asked = _asked(config, experts, run.branches)
    plans, columns = plans + asked[0], columns + asked[1]
    facts = MapFacts(sigmas=tuple(run.sigmas), prompt=problem.call["prompt"], experts=experts)
    return Unit(_held_against(model, config, problem, plans, columns)[0], facts=facts)


def _chosen(model: HookedVideoPipeline, config: AccelerationConfig, store: RunStore) -> ScheduleFacts:
    """The schedules from the maps of all problems that choose."""
    mapped = [store.finished(piece.name) for piece in choosing(config, STAGE)]
    rows = [row for unit in mapped for row in unit[0] if row["stage"] == STAGE and row["method"] == config.by]
    run = mapped[0][1]
    assert isinstance(run, MapFacts)
    branches = tuple(dict.fromkeys(str(row["branch"]) for row in rows))
    damage: dict[Cell, tuple[float, float]] = {}
    for cell in cells_of(config, run.experts, model.layers, branches):
        here = [row for row in rows if (row["first"], row["layer"], row["branch"]) == (cell.first, cell.layer, cell.branch)]
        lost = [1 - row["kept"] for row in here if row["kept"] is not None]
        damage[cell] = (sum(lost) / max(1, len(lost)), sum(row["distance"] for row in here) / max(1, len(here)))
    interval, steps = interval_of(config, config.by), len(run.sigmas)
    pool = sum(len(cell.calls(interval)) for cell in damage)
    counts = {saving: budget(saving, steps, model.layers, len(branches), pool) for saving in config.savings}
    made = {saving: chosen(damage, interval, count) for saving, count in counts.items()}
    modules, unfit = held_modules(model.engines)
    if len(branches) > 1 and not (unfit or tells_branches(model.pipe)):
        unfit = "its pipeline does not tell diffusers' caches which branch a call is of"
    return ScheduleFacts(
        chosen=made, steps=steps, layers=model.layers, branches=branches, experts=run.experts, modules=modules, unfit=unfit
    )


def _tested(model: HookedVideoPipeline, config: AccelerationConfig, store: RunStore, problem: Problem) -> Unit:
    facts = store.finished(SCHEDULE)[1]
    assert isinstance(facts, ScheduleFacts)
    pool, interval = cells_of(config, facts.experts, facts.layers, facts.branches), interval_of(config, config.by)
    plans: list[Plan] = []
    columns: list[Row] = []
    for saving, calls in facts.chosen.items():
        named = {"chosen": calls, "uniform": uniform(spanned(pool), facts.layers, facts.branches, len(calls))}
        for draw in range(config.draws):
            named[f"random {draw}"] = random(pool, interval, len(calls), seed_for("random schedule", *config.about, draw))
        for name, some in named.items():
            plans.append(Plan(config.by, frozenset(some), config.bits))
            columns.append({"stage": "test", "method": config.by, "schedule": name, "saving": saving, "calls": len(some)})
    saving = judged(facts.chosen)
    shown = [SHOWN.get(column["schedule"]) if column["saving"] == saving else None for column in columns]
    asked = _asked(config, facts.experts, facts.branches)
    plans, columns, shown = plans + asked[0], columns + asked[1], shown + [None] * len(asked[0])
    rows, clips = _held_against(model, config, problem, plans, columns, shown)
    tensors, about = kept(clips)
    return Unit(rows, tensors, TestedFacts(prompt=problem.call["prompt"], **about))


def _held_against(
    model: HookedVideoPipeline, config: AccelerationConfig, problem: Problem, plans: Sequence[Plan], columns: Sequence[Row],
    shown: Sequence[str | None] = (),
) -> tuple[list[Row], list[Clip]]:  # fmt: skip
    """Rows with what was measured of each plan: ``distance`` of the final latent from the run's own, whose answer it gives; and
    the clips of the run and of the plans that ``shown`` has words for, of the first items of a task."""
    found = saved_runs(model, arguments(model, config, problem), plans, config.batch)
    as_it_is = model.decode(found[:1])[0] if problem.judged or shown else None
    own = None if as_it_is is None else judge(problem, as_it_is)
    clips: list[Clip] = [] if as_it_is is None or not shown else [(AS_IT_IS, None, as_it_is)]
    keeps = bool(clips) and choice.kept(problem, clips[0][2].nbytes)
    rows: list[Row] = []
    for column, name, latent in zip(columns, shown or [None] * len(columns), found[1:].split(1), strict=True):
        frames = model.decode(latent)[0] if problem.judged or (keeps and name) else None
        if frames is not None and name is not None:
            clips.append((name, len(rows), frames))
        verdict = None if frames is None else judge(problem, frames)
        row = {**problem.facts, **column, "distance": distance(latent, found[:1]), "kept": None, "solved": None}
        if own is not None and verdict is not None:
            row |= {"solved": solved_of(verdict), "error": verdict.error, "solved_plain": solved_of(own)}
            row |= {"kept": _kept(own, verdict)}
        rows.append(row)
    return rows, clips if keeps else []


def _kept(own: Verdict, found: Verdict) -> float | None:
    """Whether the answer of a solved run is there again; None where it was not solved, or nobody says."""
    return float(found.solved and bool(same_answer(own, found))) if own.solved and has_verdict(found) else None


work = from_others(_made)
