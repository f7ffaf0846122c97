"""The tasks by name."""

from __future__ import annotations

from importlib import import_module

from cos_interp.tasks import NAMES
from cos_interp.tasks.base import Task

TASKS: dict[str, Task] = {name: import_module(f"cos_interp.tasks.{name}").TASK for name in NAMES}


def get_task(name: str) -> Task:
    """The task of a name; ValueError names the known ones."""
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; the tasks are {', '.join(TASKS)}")
    return TASKS[name]
