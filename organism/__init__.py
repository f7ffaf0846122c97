"""The trained model organism: its recipe, its weights, its card.

``train`` makes it, ``evaluate`` measures it, ``package`` puts it together and makes untrained twins, ``shapes`` has its sizes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cos_interp.organism import evaluate, package, shapes, train

__all__ = ["evaluate", "package", "shapes", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return __all__
