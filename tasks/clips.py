"""Tasks of clips: anybody's videos and judge, in any size. What a user writes who has no grid of sprites."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
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
