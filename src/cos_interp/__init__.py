"""Mechanistic interpretability for video diffusion transformers.

``from cos_interp import HookedVideoPipeline, record, replay, Patch`` is the instrument; the rooms behind it are
:mod:`cos_interp.interp`, :mod:`cos_interp.probes`, :mod:`cos_interp.tasks`, :mod:`cos_interp.analyses`, :mod:`cos_interp.reports`
and :mod:`cos_interp.organism`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cos_interp.interp import *  # noqa: F403

ROOMS = ("analyses", "interp", "organism", "probes", "reports", "tasks")


def __getattr__(name: str) -> Any:
    """Rooms and the instrument's names, imported on first use: the command line answers before torch is loaded."""
    if name in ROOMS:
        return import_module(f"cos_interp.{name}")
    from cos_interp import interp

    if name in interp.__all__:
        return getattr(interp, name)
    raise AttributeError(f"module 'cos_interp' has no attribute {name!r}")
