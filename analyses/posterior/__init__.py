"""The clean estimate as a belief over candidate videos, against the exact posterior from x_t."""

from __future__ import annotations

from pydantic import Field

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import RunFacts, Showing
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import ChoiceConfig


class PosteriorConfig(ChoiceConfig):
    """The clean estimate as a belief over candidate videos."""

    items: int = Field(60, ge=1, le=125, description="Items of cos-500 of each task; those with several answers are used.")


class PosteriorFacts(RunFacts, Showing):
    """Of a problem: the clean estimates of some steps and the final video may be kept for the page."""


ENTRY = Entry(
    "posterior",
    PosteriorConfig,
    "The clean estimate as a belief over candidate videos, against the exact posterior from x_t.",
    (
        "cos analyze posterior",
        "cos analyze posterior --prompts my.jsonl --candidates clips --model path/to/model --out runs/posterior-mine",
    ),
    seconds=20,
    facts=(PosteriorFacts,),
    compared=(
        Measured("Candidates that the estimate holds possible", "model", by=("task",)),
        Measured("Distance from the exact posterior", "apart", by=("task",)),
    ),
)
