"""Counterfactual pairs that the model itself solves on both sides, found by a fixed rule from seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cos_interp.analyses.kit.problems import call_for
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patching import Recording, record
from cos_interp.interp.trajectory import Run
from cos_interp.tasks import Item, Task, Verdict, get_task
from cos_interp.tasks.base import PairKind

TRIES = 60  # candidate items a pair
NOISES = 4  # noises tried a seed pair


class NoPair(RuntimeError):
    """No pair was found within the tries."""


@dataclass(frozen=True)
class Pair:
    """``corrupt`` and ``clean`` are items with different answers; the model solves both with these noise seeds."""

    kind: PairKind
    corrupt: Item
    clean: Item
    corrupt_seed: int
    clean_seed: int
    tried: int

    @property
    def task(self) -> Task:
        return get_task(self.corrupt.task)


def verdict_of(item: Item, run: Run) -> Verdict:
    """The verifier's verdict on a run of one video."""
    return get_task(item.task).verify(item, run.decode()[0])


def find_pair(model: HookedVideoPipeline, task: str, kind: PairKind, index: int, seed: int, **kwargs: Any) -> Pair:
    """Pair ``index`` of a kind: the first of its candidate items for which the model solves both sides.

    Raises NoPair when none of TRIES candidates does, or when the task has no pairs of the kind.
    """
    for attempt in range(TRIES):
        number = seed * 1_000_000 + index * 1000 + attempt
        found = _candidate(model, get_task(task), kind, number, kwargs)
        if found is not None:
            corrupt, clean, corrupt_seed, clean_seed = found
            return Pair(kind, corrupt, clean, corrupt_seed, clean_seed, attempt + 1)
    raise NoPair(
        f"no {kind} pair of task {task!r} in {TRIES} candidate items: the model must solve both sides"
        + (", with two different right answers from two noises" if kind == "seed" else "")
    )


def _candidate(
    model: HookedVideoPipeline, task: Task, kind: PairKind, number: int, kwargs: dict[str, Any]
) -> tuple[Item, Item, int, int] | None:
    if kind == "seed":
        if not task.several_answers:
            raise NoPair(f"task {task.name!r} has one right answer an item, so it has no seed pairs; use maze or place")
        return _seed_pair(model, task, number, kwargs)
    item = task.sample(number, split="test")
    other = task.counterfactual(item, kind, np.random.default_rng([number, 1]))
    if other is None or set(other.answers) & set(item.answers):
        return None
    solved = []
    for side in (item, other):
        verdict = verdict_of(side, model.run(**call_for(model, side, number, **kwargs)))
        if not verdict.solved:
            return None
        solved.append(task.with_answer(side, verdict.answer))
    return solved[0], solved[1], number, number


def _seed_pair(model: HookedVideoPipeline, task: Task, number: int, kwargs: dict[str, Any]) -> tuple[Item, Item, int, int] | None:
    item = task.sample(number, unique=False, split="test")
    answers: dict[str, int] = {}
    for noise in range(number * 10, number * 10 + NOISES):
        verdict = verdict_of(item, model.run(**call_for(model, item, noise, **kwargs)))
        if verdict.solved:
            answers.setdefault(verdict.answer, noise)
        if len(answers) == 2:
            (first, a), (second, b) = answers.items()
            return task.with_answer(item, first), task.with_answer(item, second), a, b
    return None


def same_answer_seed(model: HookedVideoPipeline, item: Item, used: int, **kwargs: Any) -> int | None:
    """Another noise with which the model gives the item's own answer; None when there is none in a few tries."""
    for seed in range(used + 500_000, used + 500_000 + 2 * NOISES):
        verdict = verdict_of(item, model.run(**call_for(model, item, seed, **kwargs)))
        if verdict.solved and verdict.answer == item.answer:
            return seed
    return None


def record_item(model: HookedVideoPipeline, item: Item, seed: int, sites: list[str], **kwargs: Any) -> Recording:
    return record(model, sites, **call_for(model, item, seed, **kwargs))
