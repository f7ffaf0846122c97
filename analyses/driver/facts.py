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


class Showing(Facts):
    """Of a unit that may keep clips for its page. ``shown``: what each is; ``of_rows``: the place of its row in the unit, None
    for one that has none."""

    shown: tuple[str, ...] = ()
    of_rows: tuple[int | None, ...] = ()


class LeftOut(Facts):
    """Of a unit that could not be measured: why."""

    reason: str


COMMON: tuple[type[Facts], ...] = (Facts, RunFacts, LeftOut)
