"""What a task is: items with a true video, a verifier with three verdicts, labels and token groups."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Literal

import numpy as np

from cos_interp.tasks import grid, reader
from cos_interp.tasks.item import Item, Verdict
from cos_interp.tasks.labels import SEEN, Label

PairKind = Literal["prompt", "image", "seed"]


class Task(ABC):
    """A family of items with its verifier. It says all about itself in one file and never looks at a model.

    ``about``: a line for a user. ``difficulties``, ``difficulty_unit``: the scale and what it counts. ``errors``: what its
    verifier can name. ``strata``: what the items of a suite are spread over, (difficulty, unique answer; None where the task
    has only unique ones). ``objects``: those of its :meth:`groups` that are things, not places on the way. ``readable``: the
    labels that a probe may be asked for.
    """

    name: str
    about: str
    difficulties: range
    difficulty_unit: str
    errors: tuple[str, ...]
    strata: tuple[tuple[int, bool | None], ...]
    objects: tuple[str, ...]
    readable: tuple[Label, ...] = SEEN

    @property
    def several_answers(self) -> bool:
        """Whether some items have several right answers."""
        return any(unique is False for _, unique in self.strata)

    def with_answer(self, item: Item, answer: str) -> Item | None:
        """The item with another of its right answers as the true video; None for an answer that is not right."""
        if answer not in item.answers:
            return None
        return item if answer == item.answer else replace(item, cells=self.show(item, answer), answer=answer)

    def show(self, item: Item, answer: str) -> np.ndarray:
        """The true video of another right answer, ``[FRAMES, ROWS, COLS]``. Needed where items have several."""
        raise NotImplementedError(f"{self.name}: an item has several right answers, so the task needs show(item, answer)")

    @abstractmethod
    def propose(self, rng: np.random.Generator) -> Item | None:
        """Draw one item from the training distribution, or None when the draw is no legal scene."""

    @abstractmethod
    def judge(self, item: Item, cells: np.ndarray) -> Verdict:
        """Verdict on a fully readable video of classes ``[FRAMES, ROWS, COLS]`` whose first frame is the item's."""

    @abstractmethod
    def counterfactual(self, item: Item, kind: PairKind, rng: np.random.Generator) -> Item | None:
        """An item with another answer: other prompt on the same first frame, or other first frame with the same prompt."""

    def labels(self, item: Item) -> dict[str, np.ndarray]:
        """Token labels by name, each an int array ``[LATENT_FRAMES, ROWS, COLS]`` (-1: no label) for the true video."""
        return {label.name: label.read(item) for label in self.readable}

    @abstractmethod
    def groups(self, item: Item, donor: Item) -> dict[str, np.ndarray]:
        """Named boolean masks ``[LATENT_FRAMES, ROWS, COLS]`` over tokens, disjoint, that cover the grid."""

    def readings(self, item: Item, frames: np.ndarray) -> dict[str, float]:
        """Graded readings of a video, also of an unreadable one. Empty by default."""
        return {}

    @abstractmethod
    def moving(self, item: Item) -> list[int]:
        """Classes of the thing that the answer is about (the agent, the ball, the named object)."""

    def right_videos(self, item: Item) -> list[np.ndarray]:
        """The true videos of all right answers, each ``[FRAMES, ROWS, COLS]``."""
        return [item.cells if answer == item.answer else self.show(item, answer) for answer in item.answers]

    def sample(self, seed: int, difficulty: int | None = None, unique: bool | None = None, split: str | None = None) -> Item:
        """The item of a seed; the other arguments restrict it. Deterministic and independent of other items."""
        if difficulty is not None and difficulty not in self.difficulties:
            low, high = self.difficulties.start, self.difficulties.stop - 1
            raise ValueError(f"{self.name}: difficulty {difficulty} was asked for; it runs from {low} to {high}")
        rng = np.random.default_rng([seed, *self.name.encode()])
        for _ in range(100_000):
            item = self.propose(rng)
            if (
                item is not None
                and (difficulty is None or item.difficulty == difficulty)
                and (unique is None or item.unique == unique)
                and (split is None or item.split == split)
            ):
                return Item(**{**item.__dict__, "seed": seed})
        raise ValueError(
            f"{self.name}: no item with difficulty={difficulty}, unique={unique}, split={split} in 100,000 draws; "
            "ask for another combination"
        )

    def verify(self, item: Item, frames: np.ndarray) -> Verdict:
        """Read decoded frames (uint8 or float in [0, 1], as many as the item has, ``[frame, height, width, 3]``) and judge them.

        Every cell of every frame must be readable, else the verdict is *undecided*: an average of two answers is
        neither. Raises ValueError for a video of another length or a picture that is no multiple of the grid.
        """
        read = reader.read(frames, len(item.cells))
        readings = self.readings(item, frames) | {"unreadable_cells": float((read == grid.UNREADABLE).sum())}
        if (read == grid.UNREADABLE).any():
            return Verdict("undecided", readings=readings)
        if not np.array_equal(read[0], item.cells[0]):
            return Verdict("wrong", "first frame changed", readings=readings)
        verdict = self.judge(item, read)
        return Verdict(verdict.status, verdict.error, verdict.answer, {**readings, **verdict.readings})


def outcome(task: Task, target: Item, donor: Item, frames: np.ndarray) -> str:
    """Whose answer an intervened video gives: ``target``, ``donor``, ``other`` or ``undecided``.

    Answers are read from the picture alone, so that a donor with another first frame can be recognised too. Where the two
    items have no right answer in common, any right answer of one counts as its own; between two answers of one item only
    the very answer does.
    """
    verdict = task.verify(target, frames)
    if verdict.status == "undecided":
        return "undecided"
    for name, item, other in (("target", target, donor), ("donor", donor, target)):
        if verdict.answer == item.answer:
            return name
        if verdict.answer in item.answers and not set(item.answers) & set(other.answers):
            return name
    return "other"


def find(cells: np.ndarray, classes: int | list[int]) -> list[tuple[int, int]]:
    """Positions ``(row, col)`` of the cells of one frame that show one of the classes."""
    wanted = {classes} if isinstance(classes, int) else set(classes)  # numpy is slower on 25 cells, and items draw thousands
    return [(row, col) for row, line in enumerate(cells.tolist()) for col, found in enumerate(line) if found in wanted]


def one_hot_mask(positions: list[tuple[int, int]]) -> np.ndarray:
    """Boolean ``[ROWS, COLS]`` that is true on the positions."""
    mask = np.zeros((grid.ROWS, grid.COLS), bool)
    for row, col in positions:
        mask[row, col] = True
    return mask


def disjoint(groups: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Spread ``[ROWS, COLS]`` masks over latent frames; earlier groups win, ``rest`` gets what is left."""
    taken = np.zeros((grid.ROWS, grid.COLS), bool)
    out = {}
    for name, mask in groups.items():
        own = mask & ~taken
        taken |= own
        if own.any():
            out[name] = np.broadcast_to(own, (grid.LATENT_FRAMES, grid.ROWS, grid.COLS)).copy()
    if not taken.all():
        out["rest"] = np.broadcast_to(~taken, (grid.LATENT_FRAMES, grid.ROWS, grid.COLS)).copy()
    return out
