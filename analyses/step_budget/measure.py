"""Which allocation of a fixed number of steps over the noise levels solves most?

On every second item each allocation that favours some part of the way is tried, and the scheduler's own; on the others the best
stands against the scheduler's own and random allocations. All cost the same calls of the model. How near the final latent is to
that of a run of many more steps stands beside the verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from cos_interp.analyses.driver.experiment import Unit, from_others
from cos_interp.analyses.driver.kept import Clip, kept
from cos_interp.analyses.driver.statistics import distance
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.kit import choice
from cos_interp.analyses.kit.choice import SCHEDULE, TEST, Piece, choosing
from cos_interp.analyses.kit.problems import Problem, arguments, judge, needs_flow, problems
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.analyses.step_budget import ScheduleFacts, StepBudgetConfig, WayFacts
from cos_interp.analyses.step_budget.allocations import OWN, best, candidates, drawn, levels
from cos_interp.analyses.step_budget.exported import given_to
from cos_interp.interp.errors import InterpError
from cos_interp.interp.levels import at_sigmas
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.tasks.scorer import solved_of

Allocations = Mapping[str, Sequence[float] | None]  # positions by name; None: the scheduler's own levels


STAGE = "search"  # of the problems that choose
SHOWN = {OWN: "scheduler's own", "chosen": "chosen", "random 0": "a random allocation"}  # whose videos are kept, in words
pieces, needs = partial(choice.pieces, stage=STAGE), partial(choice.needs, stage=STAGE)


def check(config: StepBudgetConfig, model: HookedVideoPipeline) -> None:
    needs_flow(config, model)
    if len(problems(config)) < 2:
        raise InterpError(
            "one problem: an allocation is chosen on one half of the problems and tested on the other; give two or more"
        )


def searched(config: StepBudgetConfig) -> Allocations:
    """What is tried: the scheduler's own levels, and each candidate."""
    return {OWN: None, **candidates(config.num_inference_steps, config.bands, config.density)}


def randoms(config: StepBudgetConfig) -> Allocations:
    """Random allocations, the same for all items."""
    seeds = [seed_for("random allocation", *config.about, draw) for draw in range(config.draws)]
    return {f"random {draw}": drawn(config.num_inference_steps, seed) for draw, seed in enumerate(seeds)}


def _made(model: HookedVideoPipeline, config: StepBudgetConfig, store: RunStore, piece: Piece) -> Unit:
    if piece.problem is None:
        return Unit([], facts=_chosen(model, config, store))
    if piece.stage == STAGE:
        return measure(model, config, piece.problem, STAGE, searched(config))
    facts = store.finished(SCHEDULE)[1]
    assert isinstance(facts, ScheduleFacts)
    return measure(model, config, piece.problem, TEST, {OWN: None, "chosen": facts.positions, **randoms(config)})


def measure(model: HookedVideoPipeline, config: StepBudgetConfig, problem: Problem, stage: str, tried: Allocations) -> Unit:
    """A row an allocation: the distance of the final latent from the fine run's, and whether its video is right."""
    call = arguments(model, config, problem)
    plain = model.run(**call)
    fine = model.run(**call | {"num_inference_steps": config.finer * config.num_inference_steps})
    rows: list[Row] = []
    clips: list[Clip] = []
    for name, positions in tried.items():
        run = plain
        if positions is not None:
            with at_sigmas(model, levels(positions, fine.sigmas)):
                run = model.run(**call)
        shown = stage == TEST and name in SHOWN
        clip = run.decode()[0] if problem.judged or shown else None
        verdict = None if clip is None else judge(problem, clip)
        solved = solved_of(verdict)
        if clip is not None and shown and choice.kept(problem, clip.nbytes):
            clips.append((SHOWN[name], len(rows), clip))
        row = {"stage": stage, "allocation": name, "distance": distance(run.latents, fine.latents), "calls": len(run.calls)}
        rows.append({**problem.facts, **row, "solved": solved, "error": None if verdict is None else verdict.error})
    tensors, kept_of = kept(clips)
    about = {"sigmas": tuple(plain.sigmas), "fine": tuple(fine.sigmas), "prompt": problem.call["prompt"]}
    return Unit(rows, tensors, WayFacts(**about, **kept_of))


def _chosen(model: HookedVideoPipeline, config: StepBudgetConfig, store: RunStore) -> ScheduleFacts:
    """The best allocation over all problems that choose."""
    units = [store.finished(piece.name) for piece in choosing(config, STAGE)]
    rows, tried = [row for found, _ in units for row in found], searched(config)
    means = {name: _means([row for row in rows if row["allocation"] == name]) for name in tried}
    name, way = best(means), units[0][1]
    assert isinstance(way, WayFacts)
    positions = tried[name]
    found = way.sigmas if positions is None else tuple(levels(positions, way.fine))
    given, why = given_to(model.pipe.scheduler, found)
    told = None if positions is None else tuple(positions)
    return ScheduleFacts(name=name, positions=told, levels=found, own=way.sigmas, given=given, why=why)


def _means(rows: Sequence[Row]) -> tuple[float, float]:
    """Share solved of those that were judged, and mean distance."""
    solved = [row["solved"] for row in rows if row["solved"] is not None]
    return sum(solved) / max(1, len(solved)), sum(row["distance"] for row in rows) / max(1, len(rows))


work = from_others(_made)
