"""Scorers: a function of a video and of what was asked, whose answer becomes a verdict. Nothing that it does ends a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import numpy as np

from cos_interp.interp.errors import InterpError
from cos_interp.tasks.item import Item, Status, Verdict
from cos_interp.tasks.video import read_mp4

FAILED = "scorer failed: "  # how the error of a verdict begins whose scorer raised, or gave nothing that could be taken
UNREAD = "cannot be read: "  # the same, of a file that is no video
SILENT = (FAILED, UNREAD)  # what says nothing of a video
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
        return _kept(self.reference)


@lru_cache(maxsize=4)
def _kept(path: Path) -> np.ndarray:
    return read_mp4(path)


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
    if not set(found) & set(KEYS):
        return _checked("undecided", GRADED, "", found)
    if other := sorted(map(str, set(found) - set(KEYS))):
        raise ValueError(f"a scorer returned the key {other[0]!r} beside {', '.join(KEYS)}: put numbers under 'readings'")
    status = found.get("status")
    error = found.get("error") or (GRADED if status is None else "")
    return _checked(status or "undecided", error, found.get("answer") or "", found.get("readings") or {})


def _checked(status: Any, error: Any, answer: Any, readings: Any) -> Verdict:
    if status not in STATUSES:
        raise ValueError(f"a scorer returned the status {status!r}: the statuses are {', '.join(STATUSES)}")
    numbers = {}
    for name, value in dict(readings).items():
        try:
            numbers[str(name)] = float(value)
        except (TypeError, ValueError):
            raise ValueError(f"a scorer returned the reading {name} = {value!r}: readings are numbers") from None
        if not math.isfinite(numbers[str(name)]):
            raise ValueError(f"a scorer returned the reading {name} = {value}: leave out what has no number")
    return Verdict(status, str(error), str(answer), numbers)


def score(scorer: Scorer, video: np.ndarray, case: Case) -> Verdict:
    """The verdict of a scorer. Whatever goes wrong in it makes the video *undecided* with the reason, never 0 and never an end.

    ``video``: uint8 ``[frame, height, width, 3]``; the scorer gets a copy of its own.
    """
    try:
        return as_verdict(scorer(np.array(video), case))
    except (Exception, SystemExit) as error:  # of a judge that is a script
        told = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        return Verdict("undecided", f"{FAILED}{told}"[:400])


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
