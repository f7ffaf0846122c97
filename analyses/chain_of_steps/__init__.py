"""Accuracy of the clean estimate at every step; steps against frames."""

from __future__ import annotations

from pydantic import Field

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.settings import SuiteConfig


class ChainOfStepsConfig(SuiteConfig):
    """Accuracy of the clean estimate of every step."""

    items: int = Field(40, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    noises: int = Field(1, ge=1, description="Noises an item; from 2 on the entropy over seeds is reported.")
    sweep_items: int = Field(5, ge=0, le=125, description="Items of each task run with 1 to 50 steps, too; 0: none.")


ENTRY = Entry(
    "chain-of-steps",
    ChainOfStepsConfig,
    "Accuracy of the clean estimate at every step; steps against frames.",
    (
        "cos analyze chain-of-steps",
        "cos analyze chain-of-steps --items 125 --noises 1 --out runs/full",
    ),
    seconds=130,
)
