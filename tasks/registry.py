"""The tasks by name."""

from __future__ import annotations

from importlib import import_module

from cos_interp.tasks import NAMES
from cos_interp.tasks.base import Task

TASKS: dict[str, Task] = {}


def register(task: Task) -> Task:
    """Make a task of your own known by its name, to :func:`get_task`, suites and probes.

    ValueError for a name that is taken, and for a label that another task uses with other classes: a probe reads both as one.
    """
    if TASKS.get(task.name, task) is not task:
        raise ValueError(f"there is a task {task.name!r} already: choose another name")
    for other in TASKS.values():
        shared = {label.name: label for label in other.readable}
        for label in task.readable:
            same = shared.get(label.name, label)
            if (label.family, label.names) != (same.family, same.names):
                raise ValueError(
                    f"{task.name}: its label {label.name!r} ({label.family}: {', '.join(label.names)}) differs from that of "
                    f"{other.name} ({same.family}: {', '.join(same.names)}): choose another name for the label"
                )
    TASKS[task.name] = task
    return task


def get_task(name: str) -> Task:
    """The task of a name; ValueError names the known ones."""
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; the tasks are {', '.join(TASKS)}")
    return TASKS[name]


for _name in NAMES:
    register(import_module(f"cos_interp.tasks.{_name}").TASK)
