"""What every analysis leaves: a result with raw rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import pandas as pd

from cos_interp.analyses.driver.settings import AnalysisConfig

Config = TypeVar("Config", bound=AnalysisConfig)


@dataclass
class AnalysisResult(Generic[Config]):
    """``config``: the settings, as typed. ``rows``: one measured value a row. ``facts``: what the run was. ``units``: facts of
    each unit by name."""

    name: str
    config: Config
    rows: pd.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)
    units: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def first(self) -> dict[str, Any]:
        """Facts of the first unit. For what is the same in all: the steps' noise levels, the axes of tensors."""
        return next(iter(self.units.values()))

    @property
    def sigmas(self) -> list[float]:
        """Noise level of every denoising step, as the first unit that says them has them."""
        return next(unit["sigmas"] for unit in self.units.values() if unit.get("sigmas"))


Progress = Callable[[int, int, str], None]  # units done, units in all, what is running
