"""Maps of latents and layer states along the steps; distances between runs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import RunFacts
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import SuiteConfig

STATES = ("noise", "step", "feature")  # axes of the states of a space
FINALS, ESTIMATES = "finals", "estimates"  # tensors of small clips: final videos, clean estimates


class TrajectoryConfig(SuiteConfig):
    """UMAP of latents and layer states along the steps."""

    items: int = Field(24, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    noises: int = Field(4, ge=2, description="Runs an item, from different noises: distances are between them.")
    steps: tuple[int, ...] | None = Field(None, description="Steps looked at. Eight spread ones by default.")
    layers: tuple[int, ...] | None = Field(None, description="Layers whose state is followed. Start, middle, end by default.")
    pool: Literal["flat", "mean"] = Field("flat", description="Layer states with all tokens, or their mean over tokens.")
    neighbours: int = Field(15, ge=2, description="Neighbours of the UMAP.")


class TrajectoryFacts(RunFacts):
    """``runs``: noise and verdict of each run of the problem; ``steps``: those that were kept."""

    task: str
    runs: tuple[dict[str, Any], ...]
    steps: tuple[int, ...]


ENTRY = Entry(
    "trajectory",
    TrajectoryConfig,
    "Maps of latents and layer states along the steps; distances between runs.",
    (
        "cos analyze trajectory",
        "cos analyze trajectory --tasks maze --items 60 --noises 6 --out runs/trajectory-maze",
    ),
    seconds=100,
    facts=(TrajectoryFacts,),
    compared=(Measured("Distance between runs of one item", "distance", where={"kind": "pair"}, by=("space",)),),
)
