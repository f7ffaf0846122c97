"""Training-free ensemble of several seeds, against best-of-K and majority vote."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.settings import SuiteConfig


class EnsembleConfig(SuiteConfig):
    """Training-free ensemble of several seeds."""

    items: int = Field(10, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    seeds: int = Field(3, ge=2, description="Runs that are merged.")
    tensors: tuple[Literal["hidden", "v", "x0hat", "x_t"], ...] = Field(
        ("hidden", "v", "x0hat", "x_t"), description="What is averaged: hidden, v, x0hat, x_t."
    )
    steps: tuple[int, ...] = Field((0,), description="Steps in which it is averaged.")
    layers: tuple[int, ...] | None = Field(None, description="Layers averaged, for hidden. The middle third by default.")
    combine: Literal["mean", "norm-matched"] = Field("mean", description="Plain mean, or rescaled to the members' norm.")


ENTRY = Entry(
    "ensemble",
    EnsembleConfig,
    "Training-free ensemble of several seeds, against best-of-K and majority vote.",
    (
        "cos analyze ensemble",
        "cos analyze ensemble --items 125 --tensors hidden,v --steps 0,1,2 --out runs/ensemble-full",
    ),
    seconds=80,
)
