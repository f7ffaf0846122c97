"""What every analysis shares: a frozen configuration, a result with raw rows, and a registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict


class AnalysisConfig(BaseModel):
    """Frozen and strict: an unknown or malformed setting is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass
class AnalysisResult:
    """``rows``: one measured value a row. ``facts``: what the run was."""

    name: str
    config: dict[str, Any]
    rows: pd.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)


Progress = Callable[[int, int, str], None]  # units done, units in all, what is running
