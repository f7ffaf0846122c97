"""The instrument: run a diffusers video pipeline with every activation named, read, edited and replayed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cos_interp.interp.address import Address, AddressError
    from cos_interp.interp.cache import ActivationCache
    from cos_interp.interp.check.proof import check_adapter
    from cos_interp.interp.choosing import ChosenSeed, choose_seed
    from cos_interp.interp.ensemble import EnsembleSampler
    from cos_interp.interp.errors import BudgetExceeded, InterpError, UnknownHook
    from cos_interp.interp.families import register, tiny
    from cos_interp.interp.families.adapter import Adapter, NoAdapter, Site, Stack
    from cos_interp.interp.gradient.attribution import attribute
    from cos_interp.interp.inverting import Inversion, invert
    from cos_interp.interp.levels import at_sigmas
    from cos_interp.interp.model import HookedVideoPipeline
    from cos_interp.interp.patches import Patch
    from cos_interp.interp.patching import Recording, record, replay, restart
    from cos_interp.interp.row_reader import ActivationRows
    from cos_interp.interp.run.clock import Hook
    from cos_interp.interp.screening import SeedScreen
    from cos_interp.interp.steering import Steer, steer
    from cos_interp.interp.sweeping import sweep
    from cos_interp.interp.trajectory import Run
    from cos_interp.interp.views import pixel_to_latent

_HOME = {
    "address": ("Address", "AddressError"),
    "cache": ("ActivationCache",),
    "check.proof": ("check_adapter",),
    "choosing": ("ChosenSeed", "choose_seed"),
    "ensemble": ("EnsembleSampler",),
    "errors": ("BudgetExceeded", "InterpError", "UnknownHook"),
    "families": ("register",),
    "families.adapter": ("Adapter", "NoAdapter", "Site", "Stack"),
    "gradient.attribution": ("attribute",),
    "inverting": ("Inversion", "invert"),
    "levels": ("at_sigmas",),
    "model": ("HookedVideoPipeline",),
    "patches": ("Patch",),
    "patching": ("Recording", "record", "replay", "restart"),
    "row_reader": ("ActivationRows",),
    "run.clock": ("Hook",),
    "screening": ("SeedScreen",),
    "steering": ("Steer", "steer"),
    "sweeping": ("sweep",),
    "trajectory": ("Run",),
    "views": ("pixel_to_latent",),
}

__all__ = [
    "ActivationCache",
    "ActivationRows",
    "Adapter",
    "Address",
    "AddressError",
    "BudgetExceeded",
    "ChosenSeed",
    "EnsembleSampler",
    "Hook",
    "HookedVideoPipeline",
    "InterpError",
    "Inversion",
    "NoAdapter",
    "Patch",
    "Recording",
    "Run",
    "SeedScreen",
    "Site",
    "Stack",
    "Steer",
    "UnknownHook",
    "at_sigmas",
    "attribute",
    "check_adapter",
    "choose_seed",
    "invert",
    "pixel_to_latent",
    "record",
    "register",
    "replay",
    "restart",
    "steer",
    "sweep",
    "tiny",
]


def __getattr__(name: str) -> Any:
    """Import on first use: the command line answers before torch is loaded."""
    if name == "tiny":
        return import_module("cos_interp.interp.families.tiny")
    home = next((home for home, names in _HOME.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return __all__
