"""At which step the plan is chosen: re-noising, transplants, early screening of seeds."""

from __future__ import annotations

from pydantic import Field

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import RunFacts, Showing
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import SuiteConfig


class CommitmentConfig(SuiteConfig):
    """The re-noising test, transplants between runs, and screening of seeds by an early look."""

    OF_ITEMS = ("tasks", "items", "pairs")

    tasks: tuple[str, ...] = Field(("maze", "place"), min_length=1, description="Tasks, with commas.")
    items: int = Field(24, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    steps: tuple[int, ...] | None = Field(None, description="Steps of the re-noising test. Spread ones by default.")
    noises: int = Field(4, ge=2, description="Independent noises an item: the chance of agreement, and best-of-K.")
    pairs: int = Field(2, ge=0, description="Pairs of runs with two right answers, for the transplants.")


class CommitmentFacts(RunFacts, Showing):
    """Of a problem: its run and a re-noised one of each tested step may be kept for the page."""


ENTRY = Entry(
    "commitment",
    CommitmentConfig,
    "At which step the plan is chosen: re-noising, transplants, early screening of seeds.",
    (
        "cos analyze commitment",
        "cos analyze commitment --tasks maze --items 60 --noises 6 --out runs/commitment-maze",
    ),
    seconds=125,
    facts=(CommitmentFacts,),
    compared=(Measured("The answer again after re-noising", "same", where={"kind": "renoise"}, by=("task",)),),
)
