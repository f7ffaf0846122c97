"""Tasks of clips: anybody's videos and judge, in any size. What a user writes who has no grid of sprites."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from cos_interp.interp.errors import InterpError
from cos_interp.tasks import outside, suite
from cos_interp.tasks.base import Task
from cos_interp.tasks.registry import TASKS, get_task, register
from cos_interp.tasks.scorer import Case

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}")  # it becomes part of file names


class ClipTask(ABC):
    """A family of cases with its judge. ``name``: letters, digits, dashes; ``about``: a line for a user."""

    name: str
    about: str = ""

    @abstractmethod
    def cases(self) -> Iterable[Case]:
        """The cases, always in the same order; a run takes the first of them. Their names must differ."""

    @abstractmethod
    def judge(self, video: np.ndarray, case: Case) -> Any:
        """Verdict on a video, uint8 ``[frame, height, width, 3]``: see :func:`cos_interp.tasks.scorer.as_verdict`."""

    def counterfactual(self, case: Case) -> Case | None:
        """A case with another answer, that differs in the prompt or in the first frame; None where there is none."""
        return None


def cases_of(task: ClipTask, first: int, count: int) -> Iterator[Case]:
    """Some of a task's cases, from number ``first`` on. InterpError, which names the task, where there are none, where making
    them fails, and for what is no case."""
    made = 0
    try:
        for number, case in enumerate(islice(task.cases(), first, first + count), first):
            if wrong := no_case(case):
                raise InterpError(f"case {number} of {task.name}: {wrong}")
            made += 1
            yield case
    except (InterpError, GeneratorExit):
        raise
    except (Exception, SystemExit) as error:
        raise InterpError(f"cases() of {task.name} failed: {type(error).__name__}: {error}") from error
    if not made:
        raise InterpError(f"{task.name} has no case from number {first} on: cases() must give some")


def no_case(found: Any) -> str:
    """Why something is no case, in words."""
    if not isinstance(found, Case):
        return f"it is {type(found).__name__}, and must be a cos_interp.tasks.Case"
    if not (isinstance(found.name, str) and isinstance(found.prompt, str)):
        return "its name and its prompt must be texts"
    for part, axes in (("image", 3), ("video", 4)):
        given = getattr(found, part)
        if given is None:
            continue
        if not isinstance(given, np.ndarray) or given.dtype != np.uint8 or given.ndim != axes or given.shape[-1] != 3:
            told = f"{given.dtype} {list(given.shape)}" if isinstance(given, np.ndarray) else type(given).__name__
            return f"its {part} is {told}, and must be uint8 [{'frame, ' if axes == 4 else ''}height, width, 3]"
    return ""


def task_of(text: str) -> Task | ClipTask:
    """The task of a name, of ``my.py:MyTask`` or of an entry point. One of the grid is registered under its name.

    InterpError for what is neither kind of task.
    """
    if not outside.is_outside(text, outside.TASK_GROUP):
        return get_task(text)
    found = _instance(text)
    if isinstance(found, Task):
        return _registered(found, text)
    lacking = [part for part in ("cases", "judge") if not callable(getattr(found, part, None))]
    if lacking or not isinstance(getattr(found, "name", None), str):
        raise InterpError(
            f"{text} is no task (it has no {(lacking or ['name'])[0]}): subclass cos_interp.tasks.ClipTask, or Task for the grid"
        )
    if not NAME.fullmatch(found.name):
        raise InterpError(f"{text}: the name {found.name!r} becomes part of file names: use letters, digits and dashes")
    return found


_INSTANCES: dict[type, Any] = {}  # one of a class, however often it is named: what is registered stays the same object


def _instance(text: str) -> Any:
    found = outside.load(text, outside.TASK_GROUP)
    if not isinstance(found, type):
        return found
    if found not in _INSTANCES:
        try:
            _INSTANCES[found] = found()
        except TypeError as error:
            raise InterpError(f"{text} cannot be made without arguments: {error}") from error
        except (Exception, SystemExit) as error:
            raise InterpError(f"{text} cannot be made: {type(error).__name__}: {error}") from error
    return _INSTANCES[found]


def _registered(task: Task, text: str) -> Task:
    """A file that was edited since stands in the place of what it was."""
    if not NAME.fullmatch(task.name):
        raise InterpError(f"{text}: the name {task.name!r} becomes part of file names: use letters, digits and dashes")
    held = TASKS.get(task.name)
    if held is not None and held is not task and type(held).__module__.startswith(outside.PREFIX):
        del TASKS[task.name]
        suite.task_items.cache_clear()
        suite.confirmation_items.cache_clear()
    return register(task)


def grid_task(text: str) -> str:
    """The name of a task whose items are cells of the grid. InterpError for a task of clips, which has no cells."""
    found = task_of(text)
    if isinstance(found, Task):
        return found.name
    raise InterpError(
        f"{text} is a task of clips, without cells and labels: this needs a task of the grid; "
        "experiments that take --prompts take it, and patching takes its pairs as --pair-file"
    )
