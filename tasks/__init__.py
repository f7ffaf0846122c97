"""Controlled video-reasoning tasks with exact verifiers. A task is one file that says all about it, and a name here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cos_interp.tasks.base import Item, Task, Verdict
    from cos_interp.tasks.registry import TASKS, get_task

NAMES = ("maze", "occlusion", "bounce", "place")  # modules of this package, each with its TASK

_HOME = {"base": ("Item", "Task", "Verdict"), "registry": ("TASKS", "get_task")}

__all__ = ["TASKS", "Item", "Task", "Verdict", "get_task"]


def __getattr__(name: str) -> Any:
    """Import on first use: the command line knows the names of the tasks before numpy is loaded."""
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"cos_interp.tasks.{module}"), name)
    raise AttributeError(f"module 'cos_interp.tasks' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
