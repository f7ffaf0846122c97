"""Accuracy of the clean estimate at every step; steps against frames."""

from __future__ import annotations

from pydantic import Field

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.settings import SuiteConfig


class ChainOfStepsConfig(SuiteConfig):
    """Accuracy of the clean estimate of every step."""

    items: int = Field(25, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    noises: int = Field(2, ge=1, description="Noises an item; from 2 on the entropy over seeds is reported.")


ENTRY = Entry(
    "chain-of-steps",
    ChainOfStepsConfig,
    "Accuracy of the clean estimate at every step; steps against frames.",
    (
        "cos analyze chain-of-steps",
        "cos analyze chain-of-steps --items 125 --noises 1 --out runs/full",
    ),
    seconds=75,
)
