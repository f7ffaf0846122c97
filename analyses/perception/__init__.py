"""At which step objects are localised, and at which motion appears."""

from __future__ import annotations

from pydantic import Field

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import SuiteConfig


class PerceptionConfig(SuiteConfig):
    """At which step objects are localised, and at which motion appears."""

    items: int = Field(15, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")


ENTRY = Entry(
    "perception-before-action",
    PerceptionConfig,
    "At which step objects are localised, and at which motion appears.",
    (
        "cos analyze perception-before-action",
        "cos analyze perception-before-action --tasks maze --items 125 --out runs/lag",
    ),
    seconds=16,
    compared=(
        Measured("Objects are where they are at the end", "localised"),
        Measured("Objects move as they do at the end", "motion"),
    ),
)
