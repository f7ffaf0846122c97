"""Answers that change along the steps without any injection."""

from __future__ import annotations

from pydantic import Field

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import RunFacts, Showing
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import SuiteConfig


class SelfCorrectionConfig(SuiteConfig):
    """Answers that change without any injection."""

    items: int = Field(100, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")


class CorrectionFacts(RunFacts, Showing):
    """``wrong``: the steps that read as a wrong answer; ``corrected``: whether there are some and the final video is right."""

    wrong: tuple[int, ...]
    corrected: bool


ENTRY = Entry(
    "self-correction",
    SelfCorrectionConfig,
    "Answers that change along the steps without any injection.",
    (
        "cos analyze self-correction",
        "cos analyze self-correction --tasks maze,place --items 125 --out runs/corrections",
    ),
    seconds=100,
    facts=(CorrectionFacts,),
    compared=(
        Measured("Solved, read from the clean estimate", "status", by=("task",), counts="solved"),
        Measured("Wrong, read from the clean estimate", "status", by=("task",), counts="wrong"),
    ),
)
