"""Follow the first frame's objects: attention, decodability while hidden, tracking, knock-out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import RunFacts, Showing
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import SuiteConfig


class MemoryConfig(SuiteConfig):
    """Follow the tokens of the first frame's objects."""

    tasks: tuple[str, ...] = Field(("occlusion", "maze", "place"), min_length=1, description="Tasks, with commas.")
    items: int = Field(40, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    knocked: int = Field(14, ge=0, description="Items of each task, of those with two objects, whose attention is cut; 0: none.")
    steps: tuple[int, ...] | None = Field(None, description="Steps that are read. Five spread ones by default.")
    cell: tuple[int, ...] | None = Field(None, description="Row and column followed in own prompts: 2,3. The centre by default.")
    batch: int = Field(7, ge=1, description="Knocked-out runs in one forward.")

    @field_validator("cell")
    @classmethod
    def _cell(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and len(value) != 2:
            raise ValueError("give a row and a column of the latent grid, like 2,3")
        return value


def label(row: Mapping[str, Any]) -> str | None:
    """What the video of a row is, of those that are shown: untouched, and cut from some tokens everywhere. None for others."""
    if row["kind"] != "knockout" or (row["step_part"], row["layer_part"]) != ("all", "all"):
        return None
    return "untouched" if row["tokens"] == "none" else f"cut from: {row['tokens']}"


class MemoryFacts(RunFacts, Showing):
    """``steps``: those that were read."""

    steps: tuple[int, ...]


ENTRY = Entry(
    "memory",
    MemoryConfig,
    "Follow the first frame's objects: attention, decodability while hidden, tracking, knock-out.",
    (
        "cos analyze memory",
        "cos analyze memory --tasks occlusion --items 125 --knocked 60 --out runs/memory-occlusion",
    ),
    seconds=150,
    facts=(MemoryFacts,),
    compared=(
        Measured("Attention to the object's first cell, times even", "object", ("step", "layer"), {"kind": "attention"}),
        Measured("Matching follows moved objects", "hit", ("step", "layer"), {"kind": "tracking"}),
    ),
)
