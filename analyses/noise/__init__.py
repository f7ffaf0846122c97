"""Noise at a step against noise at a frame, also at equal dose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import RunFacts, Showing
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.settings import SuiteConfig
from cos_interp.analyses.kit.kinds import Mode, known_dose


class NoiseConfig(SuiteConfig):
    """Noise at a step against noise at a frame."""

    items: int = Field(8, ge=1, le=125, description="Items of cos-500 of each task; 125 are all.")
    steps: tuple[int, ...] | None = Field(None, description="Disturbed steps. First, middle, last, and F between.")
    frames: tuple[int, ...] | None = Field(None, description="Disturbed latent frames. All by default.")
    modes: tuple[Mode, ...] = Field(("replace", "renoise"), description="Kinds of noise: replace, add, renoise, shuffle.")
    doses: tuple[float, ...] = Field((1.0,), min_length=1, description="Amplitude of the noise, 1 is the paper's.")
    rows: str | None = Field(None, description="Disturb these latent rows only: 0:2. All by default.")
    cols: str | None = Field(None, description="Disturb these latent columns only. All by default.")
    batch: int = Field(12, ge=1, description="Disturbed runs in one forward.")

    @model_validator(mode="after")
    def _fitting_doses(self) -> NoiseConfig:
        for mode in self.modes:
            for dose in self.doses:
                known_dose(mode, dose)
        return self


def label(row: Mapping[str, Any]) -> str | None:
    """What the video of a row is: undisturbed, or with noise in all frames at a step, or in one frame at every step; None for the
    kinds that are not shown."""
    if row["kind"] == "none":
        return "undisturbed"
    return f"{row['mode']}: {row['kind']} {row[row['kind']]:.0f}" if row["kind"] in ("step", "frame") else None


class NoiseFacts(RunFacts, Showing):
    """``scheduler``: the name of its class; ``few``: the steps at which a frame is
    disturbed so that it has the noise of one step."""

    scheduler: str
    few: tuple[int, ...] = ()


ENTRY = Entry(
    "noise",
    NoiseConfig,
    "Noise at a step against noise at a frame, also at equal dose.",
    (
        "cos analyze noise",
        "cos analyze noise --tasks maze --modes renoise --doses 0.25,0.5,1 --out runs/doses",
    ),
    seconds=150,
    facts=(NoiseFacts,),
    compared=(
        Measured(
            "Solved with noise in all frames at a step", "status", where={"kind": "step"}, by=("mode", "dose"), counts="solved"
        ),
        Measured("Distance of the final latent after noise at a step", "distance", where={"kind": "step"}, by=("mode", "dose")),
    ),
)
