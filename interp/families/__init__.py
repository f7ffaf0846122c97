"""Families of video transformers: one small file each, found by the class name of the transformer.

A new family is one file that calls :func:`register`, see docs/adding-a-family.md.
"""

from __future__ import annotations

from importlib import import_module

from torch import nn

from cos_interp.interp.families.adapter import Adapter, NoAdapter
from cos_interp.interp.families.unsupported import REASONS

MODULES = (
    "wan", "ltx", "ltx2", "cogvideox", "hunyuan", "mochi", "allegro", "latte", "cosmos", "easyanimate", "sana", "kandinsky",
    "motif", "framepack",
)  # fmt: skip
_REGISTRY: dict[str, Adapter] = {}


def register(adapter: Adapter) -> Adapter:
    """Make an adapter known for its transformer classes; the last one registered for a class is used."""
    for name in adapter.classes:
        _REGISTRY[name] = adapter
    return adapter


def registry() -> dict[str, Adapter]:
    """Adapters by the class name of the transformer."""
    for module in MODULES:
        import_module(f"cos_interp.interp.families.{module}")
    return dict(_REGISTRY)


def adapter_for(transformer: nn.Module) -> Adapter:
    """The adapter of a transformer; NoAdapter says what is supported, and why a known family is not."""
    known, name = registry(), type(transformer).__name__
    if name in known:
        return known[name]
    reason = f": {REASONS[name]}" if name in REASONS else " yet"
    families = sorted({adapter.family for adapter in known.values()})
    raise NoAdapter(
        f"{name} has no adapter{reason}. Supported families: {', '.join(families)}; docs/adding-a-family.md shows how to add one"
    )
