"""Can bad seeds be stopped early, and what is that worth?"""

from __future__ import annotations

from pydantic import Field

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import RunFacts, Showing
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import SuiteConfig
from cos_interp.interp.limits import MOST_STEPS


class SeedsConfig(SuiteConfig):
    """Several seeds of each problem, looked at early; the most promising one is finished."""

    items: int = Field(10, ge=2, le=125, description="Items of cos-500 of each task; 125 are all.")
    num_inference_steps: int = Field(10, ge=3, le=MOST_STEPS, description="Denoising steps of every run.")
    noises: int = Field(4, ge=2, le=12, description="Seeds of each problem, of which one is finished.")
    steps: tuple[int, ...] | None = Field(None, description="Steps that are looked at; the last of the first half decides.")
    components: int = Field(16, ge=1, description="Principal components that the read-out is trained on.")


class SeedsFacts(RunFacts, Showing):
    """Of a problem: the videos of all its seeds may be kept for the page."""


ENTRY = Entry(
    "seeds",
    SeedsConfig,
    "Stopping bad seeds early: a scorer, a latent read-out or candidates against best-of-K and majority at equal cost.",
    (
        "cos analyze seeds --model organism:young",
        "cos analyze seeds --model organism:young --tasks maze --items 60 --noises 6 --out runs/seeds-maze",
    ),
    seconds=27,
    facts=(SeedsFacts,),
    compared=(Measured("What the scorer says of the estimate", "scorer", where={"kind": "look"}),),
)
