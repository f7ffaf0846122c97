"""Attention maps of queries and prompt words; head statistics."""

from __future__ import annotations

from pydantic import Field, field_validator

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import RunFacts
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import SuiteConfig


class AttentionConfig(SuiteConfig):
    """Attention maps and statistics of heads."""

    items: int = Field(6, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    steps: tuple[int, ...] | None = Field(None, description="Steps that are read. Five spread ones by default.")
    layers: tuple[int, ...] | None = Field(None, description="Layers that are read. All by default.")
    heads: tuple[int, ...] | None = Field(None, description="Heads shown one by one in the maps. Their mean by default.")
    query: tuple[int, ...] | None = Field(
        None, description="Frame, row and column of the query of the maps: 4,2,3. By default the moving thing, or the centre."
    )
    words: tuple[str, ...] | None = Field(None, description="Words of the prompt whose maps are shown. All by default.")

    @field_validator("query")
    @classmethod
    def _query(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and len(value) != 3:
            raise ValueError("give frame, row and column of the latent grid, like 4,2,3")
        return value


class AttentionFacts(RunFacts):
    """``steps``, ``layers``: what was read; ``query``: frame, row and column of the maps' query; ``queries``: of those that are
    laid over the video, () where it is the only one; ``words``: of the word maps."""

    steps: tuple[int, ...]
    layers: tuple[int, ...]
    query: tuple[int, int, int]
    queries: tuple[tuple[int, int, int], ...] = ()
    words: tuple[str, ...]


ENTRY = Entry(
    "attention",
    AttentionConfig,
    "Attention maps of queries and prompt words; head statistics.",
    (
        "cos analyze attention",
        "cos analyze attention --layers 2,3 --heads 0,1 --query 4,2,3 --words red --out runs/maps",
    ),
    seconds=12,
    facts=(AttentionFacts,),
    compared=(
        Measured("Entropy of attention, bits", "entropy", ("step", "layer"), {"kind": "self"}),
        Measured("Distance that tokens look, cells", "distance", ("step", "layer"), {"kind": "self"}),
    ),
)
