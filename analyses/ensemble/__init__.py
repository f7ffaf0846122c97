"""Training-free ensemble of several seeds, against one seed at the same norm, best-of-K and majority vote."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import Showing
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import SuiteConfig


class EnsembleConfig(SuiteConfig):
    """Training-free ensemble of several seeds."""

    items: int = Field(10, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    seeds: int = Field(3, ge=2, description="Runs that are merged.")
    repeats: int = Field(1, ge=1, description="Ensembles of each item, with seeds of their own. An item counts once.")
    tensors: tuple[Literal["x_t", "hidden", "v", "x0hat", "final"], ...] = Field(
        ("x_t", "hidden", "v", "x0hat", "final"),
        min_length=1,
        description="What is averaged: x_t, hidden, v, x0hat in some steps; final: the final latents, before decoding.",
    )
    steps: tuple[int, ...] = Field((0,), description="Steps in which it is averaged.")
    layers: tuple[int, ...] | None = Field(None, description="Layers averaged, for hidden. The middle third by default.")
    combine: Literal["mean", "norm-matched"] = Field("mean", description="Plain mean, or rescaled to the members' norm.")


class EnsembleFacts(Showing):
    """Of a problem: the videos of its first ensembles may be kept for the page."""

    prompt: str


ENTRY = Entry(
    "ensemble",
    EnsembleConfig,
    "Training-free ensemble of several seeds, against one seed at the same norm, best-of-K and majority vote.",
    (
        "cos analyze ensemble",
        "cos analyze ensemble --items 125 --num-steps 4 --repeats 2 --tensors x_t --out runs/ensemble-with-room",
    ),
    seconds=100,
    facts=(EnsembleFacts,),
    compared=(
        Measured("Solved", "solved", (), by=("method",)),
        Measured("Change of the final latent by merging", "distance", (), by=("method",)),
    ),
)
