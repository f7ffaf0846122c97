"""What a pipeline prepares before its loop, made by the adapter where the pipeline itself cannot for several rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Conditions:
    """``prepared``: what ``prepare_latents`` would return, its parts in a tuple. ``told``: arguments of the transformer in which
    the rows differ. ``encoded``: what methods among ``Adapter.recalls`` would return, by name."""

    prepared: tuple[Any, ...]
    told: Mapping[str, Any] = field(default_factory=dict)
    encoded: Mapping[str, Any] = field(default_factory=dict)


def each_row(value: Any, count: int) -> list[Any]:
    """One for every row: a list as it is, a single one for all."""
    return value if isinstance(value, list) else [value] * count
