"""Counterfactual pairs that the model itself solves on both sides, found by a fixed rule from seeds, with their recordings."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from cos_interp.analyses.driver.outlook import recording_budget
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.analyses.kit.problems import Problem, arguments, item_call
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.interp.keeping import Keeping
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patching import Recording, record
from cos_interp.interp.places import Place
from cos_interp.tasks import Item, Task, Verdict, get_task, suite
from cos_interp.tasks.base import PairKind

TRIES = 60  # candidate items a pair
NOISES = 4  # noises tried a seed pair
BESIDE = "beside"  # what is recorded beside the two sides of a pair
HOPELESS = 20  # first runs of a search, none solved, that end it; one model in 1,250 that solves 3 in 10 has such
Made = Callable[[Item, int], Problem]  # of an item and a noise


class NoPair(RuntimeError):
    """No pair was found within the tries."""


@dataclass(frozen=True)
class Side:
    """One side of a pair: what was generated, from which noise, and the recording of that run."""

    problem: Problem
    recording: Recording

    @property
    def item(self) -> Item:
        """The item of a side that has one (a pair of the user's own has none)."""
        assert self.problem.item is not None
        return self.problem.item

    def verdict(self) -> Verdict:
        """The verifier's verdict on the side's own video."""
        return get_task(self.item.task).verify(self.item, self.recording.run.decode()[0])


@dataclass(frozen=True)
class SideKept:
    """What is kept of one side: the sites that it gives, in which steps (None: all), what else it is for, and bytes at most."""

    sites: Sequence[str]
    steps: Sequence[int] | None
    keeping: Keeping
    budget: int


@dataclass(frozen=True)
class Recorder:
    """How the runs of a pair are made: the settings of every run, and what of it is kept (sites, steps; None: all steps).

    ``kept``: what of a side, "corrupt", "clean" or BESIDE them, where that is not the same for all; it is then kept one step at a
    time where that is enough and all do not fit. ``place``: makes the place of each recording; None: where it is computed.
    """

    model: HookedVideoPipeline
    config: AnalysisConfig
    sites: Sequence[str] = ()
    steps: Sequence[int] | None = None
    kept: Mapping[str, SideKept] = field(default_factory=dict)
    place: Callable[[], Place | None] = lambda: None

    def __call__(self, problem: Problem, side: str = BESIDE) -> Side:
        kept = self.kept.get(side, SideKept(self.sites, self.steps, Keeping(), recording_budget(self.config)))
        steps = None if kept.steps is None else list(kept.steps)
        keeping = replace(kept.keeping, place=self.place())
        call = arguments(self.model, self.config, problem)
        made = record(self.model, kept.sites, bool(self.kept), keeping, steps=steps, max_bytes=kept.budget, **call)
        return Side(problem, made)


@dataclass(frozen=True)
class Pair:
    """Two sides with different answers. ``tried``: the candidates until both were solved, the last one counted."""

    kind: PairKind | str
    corrupt: Side
    clean: Side
    tried: int = 1

    @property
    def one_noise(self) -> bool:
        """Whether both sides started from the same noise."""
        return self.corrupt.problem.seed == self.clean.problem.seed

    @property
    def one_condition(self) -> bool:
        """Whether both sides have the same prompt, picture and size, and differ in the noise alone."""
        return self.corrupt.problem.call == self.clean.problem.call


def find_pair(
    recorder: Recorder, task: str, kind: PairKind, index: int, unique: bool = False, solved: bool = True
) -> Pair:  # fmt: skip
    """Pair ``index`` of a kind: the first of its candidate items for which the model solves both sides.

    ``unique``: of prompt and image pairs only those with one right answer on either side. ``solved=False``: of prompt and image
    pairs the first candidate, whatever the model makes of it. Raises NoPair when none of TRIES candidates does, when the first
    HOPELESS runs solve nothing, or when the task has no pairs of the kind.
    """
    made, problem = get_task(task), partial(_problem, f"{task}-{kind}-{index:03d}", index)
    if kind == "seed" and not made.several_answers:
        raise NoPair(f"task {task!r} has one right answer an item, so it has no seed pairs; use maze or place")
    solver = Solver(recorder)
    for attempt, number in enumerate(candidate_numbers(recorder.config, task, kind, index)):
        if kind == "seed":
            sides = _seed_sides(solver, made, number, problem)
        else:
            sides = _sides(solver, made, kind, number, problem, unique, solved)
        if sides is not None:
            return Pair(kind, *sides, attempt + 1)
        if solver.runs >= HOPELESS and not solver.right:
            raise NoPair(f"no {kind} pair of task {task!r}: the model solved none of the first {solver.runs} candidate runs")
    raise NoPair(
        f"no {kind} pair of task {task!r} in {TRIES} candidate items: the model must solve both sides"
        + (", with two different right answers from two noises" if kind == "seed" else "")
    )


def candidate_numbers(config: AnalysisConfig, task: str, kind: str, index: int) -> list[int]:
    """The seeds of the items that pair ``index`` is looked for among, in their order."""
    return [seed_for("pair item", *config.about, task, kind, index, attempt) for attempt in range(TRIES)]


def two_items(config: AnalysisConfig, task: Task, kind: PairKind, number: int, unique: bool) -> tuple[Item, Item] | None:
    """The items of a prompt or image pair by the seed of the first; None where it has no other with answers of its own, or where
    they are not for this run."""
    item = task.sample(number, unique=True if unique else None, split="test")
    other = task.counterfactual(item, kind, np.random.default_rng([number, 1]))
    if other is None or set(other.answers) & set(item.answers) or (unique and not other.unique):
        return None
    return (item, other) if unseen(config, item, other) else None


def unseen(config: AnalysisConfig, *items: Item) -> bool:
    """Whether items may be in a run: in one that confirms none that is in cos-500, whose numbers rules have seen."""
    return not (config.confirm and any(map(suite.holds, items)))


def _problem(name: str, index: int, item: Item, seed: int) -> Problem:
    return Problem(name, item_call(item), seed, index, item)


@dataclass
class Solver:
    """Runs of candidates, and how many of them are right."""

    recorder: Recorder
    runs: int = 0
    right: int = 0

    def __call__(self, problem: Problem, which: str) -> Side | None:
        """The run's side with the answer that the model gave as its item's own; None when that is not a right one."""
        side = self.recorder(problem, which)
        verdict, task = side.verdict(), get_task(side.item.task)
        self.runs += 1
        if not verdict.solved:
            return None
        self.right += 1
        item = task.with_answer(side.item, verdict.answer)
        return replace(side, problem=replace(side.problem, item=item))


def _sides(
    solver: Solver, task: Task, kind: PairKind, number: int, problem: Made, unique: bool, solved: bool
) -> tuple[Side, Side] | None:
    found = two_items(solver.recorder.config, task, kind, number, unique)
    if found is None:
        return None
    (item, other), noise = found, seed_for("pair noise", number)
    if not solved:
        return solver.recorder(problem(item, noise), "corrupt"), solver.recorder(problem(other, noise), "clean")
    corrupt = solver(problem(item, noise), "corrupt")
    clean = None if corrupt is None else solver(problem(other, noise), "clean")
    return None if corrupt is None or clean is None else (corrupt, clean)


def _seed_sides(solver: Solver, task: Task, number: int, problem: Made) -> tuple[Side, Side] | None:
    item = task.sample(number, unique=False, split="test")
    found: dict[str, Side] = {}
    for draw in range(NOISES) if unseen(solver.recorder.config, item) else ():
        side = solver(problem(item, seed_for("pair noise", number, draw)), "clean" if found else "corrupt")
        if side is not None:
            found.setdefault(side.item.answer, side)
        del side  # a recording that is not needed is gone before the next one is made
        if len(found) == 2:
            corrupt, clean = found.values()
            return corrupt, clean
    return None


def same_answer(recorder: Recorder, side: Side) -> Side | None:
    """The side's item from another noise with which the model gives the same answer; None when a few tries find none."""
    for seed in other_noises(side.problem.seed):
        again = recorder(replace(side.problem, seed=seed))
        verdict = again.verdict()
        if verdict.solved and verdict.answer == side.item.answer:
            return again
        del again
    return None


def other_noises(seed: int) -> list[int]:
    """Noises for another run of a problem that ran from ``seed``, in the order in which they are tried."""
    return [seed_for("same answer", seed, draw) for draw in range(2 * NOISES)]


def stranger(task: str, config: AnalysisConfig, index: int, unlike: Collection[str] = ()) -> Problem:
    """A random other item with a noise of its own, the donor of pair ``index``'s control.

    The first of a few with a prompt that is none of ``unlike``, or the first of all: an equal prompt changes nothing where text
    is read, and would be no control.
    """
    drawn = (seed_for("stranger", *config.about, task, index, *again) for again in ((), *((n,) for n in range(1, TRIES))))
    items = ((get_task(task).sample(n, split="test"), n) for n in drawn)
    made = (_problem(f"{task}-random-{index:03d}", index, item, n) for item, n in items if unseen(config, item))
    first = next(made)
    return next((found for found in itertools.chain([first], made) if found.call["prompt"] not in unlike), first)
