"""The instrument: run a diffusers video pipeline with every activation named, read, edited and replayed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cos_interp.interp.address import Address
    from cos_interp.interp.cache import ActivationCache
    from cos_interp.interp.errors import BudgetExceeded, InterpError, UnknownHook
    from cos_interp.interp.model import HookedVideoPipeline
    from cos_interp.interp.run.clock import Hook
    from cos_interp.interp.trajectory import Run

_HOME = {
    "Address": "address", "ActivationCache": "cache", "Hook": "run.clock", "BudgetExceeded": "errors",
    "EnsembleSampler": "ensemble",
    "InterpError": "errors", "UnknownHook": "errors", "HookedVideoPipeline": "model", "Run": "trajectory",
}  # fmt: skip

__all__ = [
    "ActivationCache",
    "Address",
    "BudgetExceeded",
    "EnsembleSampler",
    "Hook",
    "HookedVideoPipeline",
    "InterpError",
    "Run",
    "UnknownHook",
]


def __getattr__(name: str):
    """Import on first use: the command line answers before torch is loaded."""
    if name not in _HOME:
        raise AttributeError(f"module 'interp' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"cos_interp.interp.{_HOME[name]}"), name)
