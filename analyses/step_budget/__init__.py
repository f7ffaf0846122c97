"""Does the same number of steps solve more, spent at other noise levels?"""

from __future__ import annotations

from pydantic import Field

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import Facts, RunFacts, Showing
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import SuiteConfig
from cos_interp.interp.limits import MOST_STEPS


class StepBudgetConfig(SuiteConfig):
    """A search for the noise levels at which a fixed number of steps solves most."""

    items: int = Field(30, ge=2, le=125, description="Items of cos-500 of each task; half of them choose. 125 are all.")
    num_inference_steps: int = Field(
        2, ge=2, le=MOST_STEPS, description="Denoising steps of every run: the budget. The organism solves nearly all with 3."
    )
    bands: int = Field(3, ge=2, le=6, description="Parts of the way from noise to video that may be given more steps.")
    density: float = Field(4.0, gt=1, description="How many times as many steps, for its length, a favoured part is given.")
    draws: int = Field(3, ge=1, description="Random allocations of equal cost.")
    finer: int = Field(8, ge=2, description="The run that stands for the exact one has so many times as many steps.")


class ScheduleFacts(Facts):
    """The allocation that half of the items chose. ``positions``: of its steps along the scheduler's own way, 0 to 1; None where
    the scheduler's own levels are the best. ``levels``: as noise levels, and ``own``: the scheduler's, both on the first item.
    ``given``: what the scheduler's ``set_timesteps(sigmas=...)`` turns into the levels; None where nothing does, and ``why``."""

    name: str
    positions: tuple[float, ...] | None
    levels: tuple[float, ...]
    own: tuple[float, ...]
    given: tuple[float, ...] | None
    why: str = ""


class WayFacts(RunFacts, Showing):
    """Of an item. ``fine``: the noise levels of the fine run."""

    fine: tuple[float, ...]


ENTRY = Entry(
    "step-budget",
    StepBudgetConfig,
    "Where a fixed number of steps solves most: other noise levels, chosen on half of the items.",
    (
        "cos analyze step-budget",
        "cos analyze step-budget --tasks maze --items 60 --num-steps 6 --out runs/budget-6",
    ),
    seconds=42,
    facts=(ScheduleFacts, WayFacts),
    compared=(Measured("Distance from the fine run, by allocation", "distance", ("allocation",), {"stage": "search"}),),
)
