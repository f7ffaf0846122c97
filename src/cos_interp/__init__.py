"""Mechanistic interpretability for video diffusion transformers.

``from cos_interp import HookedVideoPipeline, record, replay, Patch`` is the instrument; the rooms behind it are
:mod:`cos_interp.interp`, :mod:`cos_interp.probes`, :mod:`cos_interp.tasks`, :mod:`cos_interp.analyses`, :mod:`cos_interp.reports`
and :mod:`cos_interp.organism`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cos_interp import analyses, interp, organism, probes, reports, tasks
    from cos_interp.interp import (
        ActivationCache,
        Adapter,
        Address,
        AddressError,
        BudgetExceeded,
        EnsembleSampler,
        Hook,
        HookedVideoPipeline,
        InterpError,
        NoAdapter,
        Patch,
        Recording,
        Run,
        Site,
        Stack,
        UnknownHook,
        check_adapter,
        pixel_to_latent,
        record,
        register,
        replay,
        restart,
        sweep,
        tiny,
    )

ROOMS = ("analyses", "interp", "organism", "probes", "reports", "tasks")

__all__ = [
    "ActivationCache",
    "Adapter",
    "Address",
    "AddressError",
    "BudgetExceeded",
    "EnsembleSampler",
    "Hook",
    "HookedVideoPipeline",
    "InterpError",
    "NoAdapter",
    "Patch",
    "Recording",
    "Run",
    "Site",
    "Stack",
    "UnknownHook",
    "analyses",
    "check_adapter",
    "pixel_to_latent",
    "interp",
    "organism",
    "probes",
    "record",
    "register",
    "replay",
    "reports",
    "restart",
    "sweep",
    "tasks",
    "tiny",
]


def __getattr__(name: str) -> Any:
    """Rooms and the instrument's names, imported on first use: the command line answers before torch is loaded."""
    if name in ROOMS:
        return import_module(f"cos_interp.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module("cos_interp.interp"), name)


def __dir__() -> list[str]:
    return __all__
