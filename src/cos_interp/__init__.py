"""Mechanistic interpretability for video diffusion transformers.

``from cos_interp import HookedVideoPipeline, record, replay, Patch`` is the instrument; the rooms behind it are
:mod:`cos_interp.interp`, :mod:`cos_interp.probes`, :mod:`cos_interp.tasks`, :mod:`cos_interp.analyses`, :mod:`cos_interp.reports`
and :mod:`cos_interp.organism`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cos_interp import interp

if TYPE_CHECKING:
    from cos_interp import analyses, organism, probes, reports, tasks
    from cos_interp.interp import *  # noqa: F403

__all__ = ["analyses", "interp", "organism", "probes", "reports", "tasks"]
ROOMS = tuple(__all__)
__all__ += interp.__all__  # a form that type checkers follow


def __getattr__(name: str) -> Any:
    """Rooms and the instrument's names, imported on first use: the command line answers before torch is loaded."""
    if name == "__version__":
        return import_module("importlib.metadata").version("cos-interp")
    if name in ROOMS:
        return import_module(f"cos_interp.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(interp, name)


def __dir__() -> list[str]:
    return __all__
