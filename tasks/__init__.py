"""Controlled video-reasoning tasks with exact verifiers."""

from __future__ import annotations

from cos_interp.tasks.base import Item, Task, Verdict
from cos_interp.tasks.bounce import Bounce
from cos_interp.tasks.maze import Maze
from cos_interp.tasks.occlusion import Occlusion
from cos_interp.tasks.place import Place

__all__ = ["TASKS", "Item", "Task", "Verdict", "get_task"]

TASKS: dict[str, Task] = {task.name: task for task in (Maze(), Occlusion(), Bounce(), Place())}


def get_task(name: str) -> Task:
    """The task of a name; ValueError names the known ones."""
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; the tasks are {', '.join(TASKS)}")
    return TASKS[name]


def __dir__() -> list[str]:
    return __all__
