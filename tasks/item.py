"""One problem with its true video, and what a verifier says of a video."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from cos_interp.tasks import grid

Status = Literal["solved", "wrong", "undecided"]
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
        """Whether there is one right answer."""
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
        """Whether the video was read and is right: undecided is not solved."""
        return self.status == "solved"


def split_of(first: np.ndarray) -> Literal["train", "test"]:
    digest = hashlib.sha256(np.ascontiguousarray(first, np.int8).tobytes()).digest()
    return "test" if digest[0] % TEST_SHARE == 0 else "train"
