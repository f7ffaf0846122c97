"""What a task is: items with a true video, a verifier with three verdicts, labels and token groups."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from cos_interp.tasks import grid

Status = Literal["solved", "wrong", "undecided"]
PairKind = Literal["prompt", "image", "seed"]
TEST_SHARE = 8  # one scene in so many belongs to the test split


@dataclass(frozen=True)
class Item:
    """One problem with its true video.

    ``cells`` is the true video as classes ``[FRAMES, ROWS, COLS]``; ``answer`` names what the true video does;
    ``answers`` are all answers that count as right (more than one: the item is ambiguous).
    """

    task: str
    seed: int
    prompt: str
    cells: np.ndarray
    difficulty: int
    answer: str
    answers: tuple[str, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unique(self) -> bool:
        return len(self.answers) == 1

    @property
    def first_frame(self) -> np.ndarray:
        """uint8 ``[height, width, 3]``."""
        return grid.render(self.cells[0])

    @property
    def video(self) -> np.ndarray:
        """The true video, uint8 ``[FRAMES, height, width, 3]``."""
        return grid.render(self.cells)

    @property
    def split(self) -> Literal["train", "test"]:
        """Decided by the first frame alone, so that no training clip shares its scene with a test item."""
        return split_of(self.cells[0])


@dataclass(frozen=True)
class Verdict:
    """What a verifier read: ``error`` is empty unless wrong; ``readings`` are graded numbers in [0, 1] or counts."""

    status: Status
    error: str = ""
    answer: str = ""
    readings: Mapping[str, float] = field(default_factory=dict)

    @property
    def solved(self) -> bool:
        return self.status == "solved"


def split_of(first: np.ndarray) -> Literal["train", "test"]:
    digest = hashlib.sha256(np.ascontiguousarray(first, np.int8).tobytes()).digest()
    return "test" if digest[0] % TEST_SHARE == 0 else "train"


class Task(ABC):
    """A family of items with its verifier. It never looks at the model.

    ``strata``: what the items of a suite are spread over, (difficulty, unique answer; None where the task has only unique ones).
    ``objects``: those of its :meth:`groups` that are things, not places on the way.
    """

    name: str
    difficulties: range
    difficulty_unit: str
    errors: tuple[str, ...]
    strata: tuple[tuple[int, bool | None], ...]
    objects: tuple[str, ...]

    @property
    def several_answers(self) -> bool:
        """Whether some items have several right answers."""
        return any(unique is False for _, unique in self.strata)

    def with_answer(self, item: Item, answer: str) -> Item:
        """The item with another of its right answers as the true video; by default itself, since it has no other."""
        return item

    @abstractmethod
    def propose(self, rng: np.random.Generator) -> Item | None:
        """Draw one item from the training distribution, or None when the draw is no legal scene."""

    @abstractmethod
    def judge(self, item: Item, cells: np.ndarray) -> Verdict:
        """Verdict on a fully readable video of classes ``[FRAMES, ROWS, COLS]`` whose first frame is the item's."""

    @abstractmethod
    def counterfactual(self, item: Item, kind: PairKind, rng: np.random.Generator) -> Item | None:
        """An item with another answer: other prompt on the same first frame, or other first frame with the same prompt."""

    @abstractmethod
    def labels(self, item: Item) -> dict[str, np.ndarray]:
        """Token labels, each an int array ``[LATENT_FRAMES, ROWS, COLS]`` (-1: no label) for the true video."""

    @abstractmethod
    def groups(self, item: Item, donor: Item) -> dict[str, np.ndarray]:
        """Named boolean masks ``[LATENT_FRAMES, ROWS, COLS]`` over tokens, disjoint, that cover the grid."""

    def readings(self, item: Item, frames: np.ndarray) -> dict[str, float]:
        """Graded readings of a video, also of an unreadable one. Empty by default."""
        return {}

    def candidates(self, item: Item, frames: np.ndarray) -> dict[str, float]:
        """How strongly a video shows each candidate answer, 0 (not at all) to 1 (fully), also of an unreadable video.

        By default: where the moving thing stands in the last frame, ``{"row col": share of its sprite}``.
        """
        from cos_interp.tasks import reader

        moving = self.moving(item)
        last = reader.tiles(reader.as_float(frames[-1:]))[0]
        near = [reader.nearest(last, (grid.FLOOR, c)) < reader.MAX_ERROR for c in moving]
        seen = np.max([reader.share(last, grid.FLOOR, c) * fits for c, fits in zip(moving, near, strict=True)], 0)
        return {f"{r}{c}": float(np.clip(seen[r, c], 0, 1)) for r in range(grid.ROWS) for c in range(grid.COLS)}

    @abstractmethod
    def moving(self, item: Item) -> list[int]:
        """Classes of the thing that the answer is about (the agent, the ball, the named object)."""

    def right_videos(self, item: Item) -> list[np.ndarray]:
        """The true videos of all right answers, each ``[FRAMES, ROWS, COLS]``."""
        return [item.cells]

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
        """Read decoded frames (uint8 or float in [0, 1], ``[FRAMES, height, width, 3]``) and judge them.

        Every cell of every frame must be readable, else the verdict is *undecided*: an average of two answers is
        neither. Raises ValueError for a video of another length or a picture that is no multiple of the grid.
        """
        from cos_interp.tasks import reader

        read = reader.read(frames)
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
    return [(int(r), int(c)) for r, c in np.argwhere(np.isin(cells, classes))]


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


def at_latents(values: np.ndarray) -> np.ndarray:
    """Values by pixel frame, at the last pixel frame of each latent frame, ``[LATENT_FRAMES, ...]``."""
    from cos_interp.interp import pixel_to_latent  # loads torch

    latent = pixel_to_latent(len(values), grid.LATENT_FRAMES)
    return values[np.searchsorted(latent, np.arange(grid.LATENT_FRAMES), side="right") - 1]


def class_labels(cells: np.ndarray) -> np.ndarray:
    """Cell classes at the last pixel frame of each latent frame, ``[LATENT_FRAMES, ROWS, COLS]``."""
    return at_latents(cells).astype(np.int64)
