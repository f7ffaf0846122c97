"""What a unit says about itself beside its rows: records with types. An experiment names its own kinds in its ENTRY."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

PIXELS = ("pixel_frame", "y", "x", "rgb")  # axes of a clip


class Facts(BaseModel):
    """Of any unit. ``axes``: names of the axes of each of its tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    axes: Mapping[str, tuple[str, ...]] = {}


class RunFacts(Facts):
    """Of one generation. ``sigmas``: noise level of every denoising step."""

    sigmas: tuple[float, ...]
    prompt: str


class LeftOut(Facts):
    """Of a unit that could not be measured: why."""

    reason: str


COMMON: tuple[type[Facts], ...] = (Facts, RunFacts, LeftOut)
