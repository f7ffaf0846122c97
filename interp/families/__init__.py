"""Families of video transformers: one small file each, found by the class name of the transformer.

A new family is one file here with a registered subclass of :class:`Adapter`, found by itself, see docs/adding-a-family.md.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TypeVar

from torch import nn

from cos_interp.interp.families.adapter import Adapter, NoAdapter
from cos_interp.interp.families.contract import check_declaration
from cos_interp.interp.families.unsupported import REASONS

AdapterClass = TypeVar("AdapterClass", bound=Adapter)
_REGISTRY: dict[str, Adapter] = {}


def register(adapter: type[AdapterClass]) -> type[AdapterClass]:
    """Make an adapter known for its transformer classes, as ``@register``; the last one registered for a class is used.

    Raises InterpError for an adapter that lacks what it needs, or has a name that is not :class:`Adapter`'s.
    """
    check_declaration(adapter, Adapter)
    for name in adapter.classes:
        _REGISTRY[name] = adapter()
    return adapter


def registry() -> dict[str, Adapter]:
    """Adapters by the class name of the transformer."""
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


for _file in iter_modules(__path__):  # now, so that an adapter of your own, registered later, is the one that is used
    if not _file.ispkg:
        import_module(f"{__name__}.{_file.name}")
