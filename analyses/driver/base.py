"""What every analysis leaves: a result with raw rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass
class AnalysisResult:
    """``rows``: one measured value a row. ``facts``: what the run was. ``units``: facts of each unit by name."""

    name: str
    config: dict[str, Any]
    rows: pd.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)
    units: dict[str, dict[str, Any]] = field(default_factory=dict)


Progress = Callable[[int, int, str], None]  # units done, units in all, what is running
