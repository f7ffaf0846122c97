"""Who receives and who gives in a swap: pairs of runs from one noise, and the donors of the controls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cos_interp.analyses.kit.pairs import find_pair, same_answer_seed
from cos_interp.analyses.kit.problems import SIZE, Problem, item_call, problems
from cos_interp.analyses.swap import SwapConfig
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.tasks import Item

Piece = tuple[str, str, int]  # task, kind of pair, index


@dataclass(frozen=True)
class Sides:
    """Who receives and who gives. ``donors`` by name: ``pair``, and the controls ``random item``, ``same answer``."""

    name: str
    kind: str
    target: Problem
    donors: dict[str, Problem]
    tried: int = 1


def unit_name(piece: Piece) -> str:
    return f"{piece[0]}-{piece[1]}-{piece[2]:03d}"


def problem_of(name: str, item: Item, seed: int) -> Problem:
    """An item with its noise as a problem."""
    return Problem(name, item_call(item), seed, item)


def _task_sides(model: HookedVideoPipeline, config: SwapConfig, piece: Piece) -> Sides:
    """A pair of the task's items, both solved by the model, and the donors of the controls."""
    task, kind, index = piece
    generation: dict[str, Any] = {k: v for k, v in SIZE.items() if k not in model.defaults}
    generation |= {"num_inference_steps": config.num_inference_steps, "guidance_scale": config.guidance_scale}
    pair = find_pair(model, task, kind, index, config.seed, **generation)
    name, seed = unit_name(piece), pair.corrupt_seed
    stranger = pair.task.sample(config.seed * 1_000_000 + index * 1000 + 999, split="test")
    donors = {"pair": problem_of(name, pair.clean, pair.clean_seed), "random item": problem_of(name, stranger, seed)}
    again = same_answer_seed(model, pair.corrupt, seed, **generation)
    if again is not None:
        donors["same answer"] = problem_of(name, pair.corrupt, again)
    return Sides(name, kind, problem_of(name, pair.corrupt, seed), donors, pair.tried)


def _own_sides(config: SwapConfig, piece: Piece) -> Sides:
    """Own prompts: the next is the donor, the one after it (where there are three) the random item, from the same noise."""
    made, index = problems(config), piece[2]
    target = made[index]
    later = [replace(made[(index + by) % len(made)], seed=target.seed) for by in (1, 2)]
    donors = {"pair": later[0]} | ({"random item": later[1]} if len(made) > 2 else {})
    donors["same prompt"] = replace(target, seed=target.seed + 500_000)
    return Sides(unit_name(piece), "own", target, donors)


def sides_of(model: HookedVideoPipeline, config: SwapConfig, piece: Piece) -> Sides:
    """Raises NoPair when the model does not solve both sides of any candidate."""
    return _own_sides(config, piece) if config.prompts is not None else _task_sides(model, config, piece)
