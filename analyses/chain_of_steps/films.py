"""The videos of a sample as they are read: their frames, and why nobody can judge one.

A judge is given frames and no times, and holds them against those of the true video. So each must be shown when that one's are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cos_interp.tasks import Case
from cos_interp.tasks.scorer import UNREAD, UNTIMED
from cos_interp.tasks.timing import common_rate, odd, rate_of
from cos_interp.tasks.video import read_timed


@dataclass(frozen=True)
class Film:
    """One file. ``name``: how it is told of; ``frames``: uint8 ``[frame, height, width, 3]``; ``times``: the seconds at which
    they are shown, None where the file does not say it. ``wrong``: why it has no verdict; nothing where it may be judged."""

    path: Path
    name: str
    frames: np.ndarray | None = None
    times: np.ndarray | None = None
    wrong: str = ""

    @property
    def rate(self) -> float | None:
        return rate_of(self.times)

    @property
    def comparable(self) -> np.ndarray | None:
        """Its frames, where they can be held against others' frames."""
        return None if self.wrong else self.frames


def read(path: Path, name: str) -> Film:
    """A file as it is; what is no video says so."""
    try:
        return Film(path, name, *read_timed(path))
    except ValueError as error:
        return Film(path, name, wrong=f"{UNREAD}{str(error).replace(str(path), name)}")


def in_time(films: Sequence[Film], case: Case) -> list[Film]:
    """Those of one sample; one with another rate than the true video, or where that has none than most of them, is wrong."""
    try:
        rate, whose = case.true_rate, "its true video"
    except ValueError:
        rate = None
    if rate is None:
        rate, whose = common_rate([film.times for film in films if film.frames is not None]), "most videos of its sample"
    return [_held_against(film, rate, whose) for film in films]


def _held_against(film: Film, rate: float | None, whose: str) -> Film:
    why = "" if film.wrong else odd(film.times, rate, whose)
    return replace(film, wrong=f"{UNTIMED}{film.name}: {why}") if why else film
