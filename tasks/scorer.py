"""Scorers: a function of a video and of what was asked, whose answer becomes a verdict. Nothing that it does ends a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import numpy as np

from cos_interp.interp.errors import InterpError
from cos_interp.tasks.item import Item, Status, Verdict
from cos_interp.tasks.timing import rate_of
from cos_interp.tasks.video import read_timed

FAILED = "scorer failed: "  # how the error of a verdict begins whose scorer raised, or gave nothing that could be taken
UNREAD = "cannot be read: "  # the same, of a file that is no video
UNTIMED = "frame rate: "  # the same, of a file whose frames are not shown when the true video's are
SILENT = (FAILED, UNREAD, UNTIMED)  # what says nothing of a video
GRADED = "graded only"  # the error of a verdict whose scorer gives numbers and no status
KEYS = ("status", "answer", "error", "readings")
STATUSES: tuple[str, ...] = get_args(Status)


@dataclass(frozen=True)
class Case:
    """What was asked, as a scorer is told beside the video.

    ``image``: the given first frame, uint8 ``[height, width, 3]``. ``expected``: what the user wrote under that key, any JSON.
    ``video``: the true video, uint8 ``[frame, height, width, 3]``, or ``reference``, its file. ``folder``: where relative paths
    in ``expected`` start. ``group``, ``part``: what its results are gathered by (a task, and its category). ``key``: its place
    in a benchmark's folder, like ``split/task/00000``. ``file``: where the video was read from, if it was.
    """

    name: str
    prompt: str
    image: np.ndarray | None = field(default=None, compare=False)
    expected: Any = None
    video: np.ndarray | None = field(default=None, compare=False)
    reference: Path | None = None
    folder: Path = Path()
    group: str = "prompts"
    part: str = ""
    key: str = ""
    file: Path | None = field(default=None, compare=False)

    @property
    def truth(self) -> np.ndarray | None:
        """The true video, uint8 ``[frame, height, width, 3]``; None: there is none. ValueError for a file that is none."""
        if self.video is not None or self.reference is None:
            return self.video
        return _kept(self.reference)[0]

    @property
    def true_rate(self) -> float | None:
        """Frames a second of the true video's file; None without one, and for one without a steady rate. ValueError as of
        ``truth``."""
        return None if self.video is not None or self.reference is None else rate_of(_kept(self.reference)[1])


@lru_cache(maxsize=4)
def _kept(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    video, times = read_timed(path)
    video.setflags(write=False)  # the next scorer is told of the same one
    return video, times


Scorer = Callable[[np.ndarray, Case], Any]  # video uint8 [frame, height, width, 3] -> see as_verdict


def case_of(item: Item, name: str = "") -> Case:
    """A task's item, as a scorer is told of it: ``expected`` holds its answers and metadata."""
    expected = {"answer": item.answer, "answers": list(item.answers), **item.metadata}
    return Case(name or f"{item.task}-{item.seed}", item.prompt, item.first_frame, expected, item.video, group=item.task)


def as_verdict(found: Any) -> Verdict:
    """What a scorer returned, as a verdict.

    Taken: a Verdict; a bool (solved or wrong); the name of a status; None (undecided); a number or a dict of numbers (graded
    only); a dict with some of ``status, answer, error, readings``. ValueError, with what would do, for anything else.

    >>> as_verdict(True).status, as_verdict("undecided").status
    ('solved', 'undecided')
    >>> as_verdict({"status": "wrong", "error": "late", "readings": {"frames": 3}}).readings
    {'frames': 3.0}
    >>> as_verdict(0.25)
    Verdict(status='undecided', error='graded only', answer='', readings={'score': 0.25})
    """
    if isinstance(found, Verdict):
        return _checked(found.status, found.error, found.answer, found.readings)
    if found is None:
        return Verdict("undecided")
    if isinstance(found, (bool, np.bool_)):
        return Verdict("solved" if found else "wrong")
    if isinstance(found, str):
        return _checked(found, "", "", {})
    if isinstance(found, (int, float, np.number)):
        return _checked("undecided", GRADED, "", {"score": found})
    if not isinstance(found, Mapping):
        raise ValueError(f"a scorer returned {type(found).__name__}: return True, False, a status, a number, or a dict of {KEYS}")
    if found and not set(found) & set(KEYS):
        return _checked("undecided", GRADED, "", found)
    if other := sorted(map(str, set(found) - set(KEYS))):
        raise ValueError(f"a scorer returned the key {other[0]!r} beside {', '.join(KEYS)}: put numbers under 'readings'")
    status, readings = found.get("status"), {} if found.get("readings") is None else found["readings"]
    if status is not None:
        return _checked(status, found.get("error") or "", found.get("answer"), readings)
    if not (readings or found.get("error")):
        raise ValueError(
            f"a scorer returned {dict(found)!r}: give a status ({', '.join(STATUSES)}), readings, or None for nothing"
        )
    return _checked("undecided", found.get("error") or GRADED, found.get("answer"), readings)


def _checked(status: Any, error: Any, answer: Any, readings: Any) -> Verdict:
    if not isinstance(status, str) or status not in STATUSES:
        raise ValueError(
            f"a scorer returned the status {status!r}: the statuses are {', '.join(STATUSES)}; or return True or False alone"
        )
    if not isinstance(readings, Mapping):
        raise ValueError(f"a scorer returned the readings {readings!r}: give a dict of names and numbers")
    numbers = {str(name): _number(str(name), value) for name, value in readings.items()}
    return Verdict(status, str(error), "" if answer is None else str(answer), numbers)  # type: ignore[arg-type]


def _number(name: str, value: Any) -> float:
    """A reading as a float. ValueError for a truth value and a text, which a sum would take for numbers."""
    instead = "; a verdict is the status 'solved' or 'wrong'" if isinstance(value, (bool, np.bool_)) else ""
    try:
        if np.asarray(value).dtype.kind in "bSU":
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"a scorer returned the reading {name} = {value!r}: readings are numbers{instead}") from None
    if not math.isfinite(number):
        raise ValueError(f"a scorer returned the reading {name} = {value}: leave out what has no number")
    return number


def score(scorer: Scorer, video: np.ndarray, case: Case) -> Verdict:
    """The verdict of a scorer. Whatever goes wrong in it makes the video *undecided* with the reason, never 0 and never an end.

    ``video``: uint8 ``[frame, height, width, 3]``; the scorer gets a copy of its own, and of the case what it cannot change for
    those that are asked after it: pictures that are read-only, and a copy of ``expected``.
    """
    try:
        return as_verdict(scorer(np.array(video), _apart(case)))
    except (Exception, SystemExit) as error:  # of a judge that is a script
        told = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        return Verdict("undecided", f"{FAILED}{told}"[:400])


def _apart(case: Case) -> Case:
    return replace(case, expected=deepcopy(case.expected), image=_read_only(case.image), video=_read_only(case.video))


def _read_only(pixels: np.ndarray | None) -> np.ndarray | None:
    if pixels is not None:
        pixels = pixels.view()
        pixels.setflags(write=False)
    return pixels


def is_graded(verdict: Verdict) -> bool:
    """Whether a scorer gave numbers and no status."""
    return verdict.error == GRADED


def has_verdict(verdict: Verdict | None) -> bool:
    """Whether anybody said what became of a video: not where a scorer gives numbers only, failed, or had nothing to look at."""
    return verdict is not None and not is_graded(verdict) and not verdict.error.startswith(SILENT)


def solved_of(verdict: Verdict | None) -> float | None:
    """1 where a video is right, 0 where it is wrong or was looked at and cannot be read; None without a verdict."""
    return float(verdict.solved) if verdict is not None and has_verdict(verdict) else None


def answer_of(verdict: Verdict | None) -> str | None:
    """The answer that a video gives; None where none can be read. One that the scorer does not name has the verdict's name: all
    right answers count as one then, and all wrong ones.

    >>> answer_of(Verdict("solved")), answer_of(Verdict("wrong", "late", "left")), answer_of(Verdict("undecided"))
    ('solved', 'left', None)
    """
    return None if verdict is None or verdict.status == "undecided" else verdict.answer or verdict.status


def same_answer(first: Verdict | None, second: Verdict | None) -> bool | None:
    """Whether two videos give one answer; None where that is not known: without a verdict, or where both are wrong and the scorer
    names no answers. One that cannot be read gives none.

    >>> same_answer(Verdict("solved"), Verdict("solved")), same_answer(Verdict("wrong"), Verdict("wrong"))
    (True, None)
    """
    if first is None or second is None or not (has_verdict(first) and has_verdict(second)):
        return None
    if first.status == second.status == "wrong" and not (first.answer and second.answer):
        return None
    return answer_of(first) is not None and answer_of(first) == answer_of(second)


def callable_scorer(found: Any, name: str) -> Scorer:
    """A function of two arguments, or an object with ``judge``. InterpError for another thing."""
    judge = getattr(found, "judge", found)
    if not callable(judge):
        raise InterpError(f"{name} is {type(found).__name__}, no scorer: give a function judge(video, case)")
    return judge
