"""Controlled video-reasoning tasks with exact verifiers. A task is one file that says all about it, and a name here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cos_interp.tasks.base import Task
    from cos_interp.tasks.clips import ClipTask
    from cos_interp.tasks.item import Item, Verdict
    from cos_interp.tasks.labels import Label
    from cos_interp.tasks.registry import TASKS, get_task, register
    from cos_interp.tasks.scorer import Case

NAMES = ("maze", "occlusion", "bounce", "place")  # modules of this package, each with its TASK

_HOME = {
    "TASKS": "registry", "Case": "scorer", "ClipTask": "clips", "Item": "item", "Label": "labels", "Task": "base",
    "Verdict": "item", "get_task": "registry", "register": "registry",
}  # fmt: skip

__all__ = ["TASKS", "Case", "ClipTask", "Item", "Label", "Task", "Verdict", "get_task", "register"]


def __getattr__(name: str) -> Any:
    """Import on first use: the command line knows the names of the tasks before numpy is loaded."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
