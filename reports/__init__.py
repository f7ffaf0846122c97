"""Results to one self-contained HTML file. Knows tables and text, not models.

``html`` renders pages, ``figures``, ``grid_maps`` and ``grouped`` draw them; a ``drawing`` knows its numbers, ``explored``
puts them in words for the page, ``sheets`` hold frames, ``framed`` shows a page in a notebook, and ``page.js`` lets what is on a
page be explored.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cos_interp.reports import drawing, explored, figures, framed, grid_maps, grouped, html, sheets

__all__ = ["drawing", "explored", "figures", "framed", "grid_maps", "grouped", "html", "sheets"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return __all__
