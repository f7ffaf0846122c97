"""What every analysis leaves: a result with raw rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import pandas as pd

from cos_interp.analyses.driver.estimates import Estimate
from cos_interp.analyses.driver.facts import Facts, RunFacts
from cos_interp.analyses.driver.findings import UNASKED, UNRUN, Finding, Number
from cos_interp.analyses.driver.rules import judge
from cos_interp.analyses.driver.settings import AnalysisConfig

Config = TypeVar("Config", bound=AnalysisConfig)
Kind = TypeVar("Kind", bound=Facts)


@dataclass
class AnalysisResult(Generic[Config]):
    """``config``: the settings, as typed. ``rows``: one measured value a row. ``facts``: what the run was. ``units``: the
    facts of each unit by name. ``twins``: for each model of random weights beside it, its numbers by the key of their rule; None
    for one that did not run. ``workers``: processes that draw its pictures."""

    name: str
    config: Config
    rows: pd.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)
    units: Mapping[str, Facts] = field(default_factory=dict)
    twins: Sequence[Mapping[str, Number] | None] = ()
    workers: int = 1

    def judge(
        self, key: str, estimate: Estimate, statement: str, control: Number, unfit: str | None = None, short: str = ""
    ) -> Finding:
        """What the rule of a key (see ``rules.toml``) says of an estimate, beside what the twins of this run show."""
        lacking = lambda kind: Number(float("nan"), kind=kind)
        beside = [lacking(UNRUN) if twin is None else twin.get(key, lacking(UNASKED)) for twin in self.twins]
        return judge(key, estimate, statement, control, beside, unfit, short)

    def units_of(self, kind: type[Kind]) -> dict[str, Kind]:
        """The units whose facts are of a kind, by name."""
        return {name: facts for name, facts in self.units.items() if isinstance(facts, kind)}

    def first(self, kind: type[Kind]) -> Kind:
        """Facts of the first unit of a kind. For what is the same in all, like the steps' noise levels."""
        return next(iter(self.units_of(kind).values()))

    @property
    def sigmas(self) -> list[float]:
        """Noise level of every denoising step."""
        return list(self.first(RunFacts).sigmas)


Progress = Callable[[int, int, str], None]  # units done, units in all, what is running
