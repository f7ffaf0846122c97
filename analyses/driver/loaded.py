"""A finished run, read back: its settings as typed, rows, findings, and the tensors of its units."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError
from torch import Tensor

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.facts import Facts
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.analyses.driver.store import RunError, RunStore


@dataclass(frozen=True)
class LoadedRun:
    """What a finished run left. ``rows``: one measured value a row. ``facts``: ``run.json``. ``units``: names of its units."""

    folder: Path
    name: str
    config: AnalysisConfig
    rows: pd.DataFrame
    findings: tuple[Finding, ...]
    facts: Mapping[str, Any]
    units: tuple[str, ...]
    kinds: tuple[type[Facts], ...] = field(repr=False)

    def tensors(self, unit: str) -> dict[str, Tensor]:
        """The tensors of a unit, read now; ``facts_of(unit).axes`` names their axes. KeyError for a unit it does not have."""
        return RunStore(self.folder).tensors(self._known(unit))

    def facts_of(self, unit: str) -> Facts:
        """What a unit says about itself beside its rows. KeyError for a unit that the run does not have."""
        return RunStore(self.folder, self.kinds).finished(self._known(unit))[1]

    def _known(self, unit: str) -> str:
        if unit not in self.units:
            raise KeyError(f"no unit {unit!r} in {self.folder}; there are {', '.join(self.units[:5])}, ... ({len(self.units)})")
        return unit

    def __repr__(self) -> str:
        verdicts = ", ".join(finding.verdict for finding in self.findings) or "no verdict"
        return f"<{self.name} in {self.folder}: {len(self.rows)} rows, {len(self.units)} units; {verdicts}>"


def read(folder: Path, entries: Mapping[str, Entry]) -> LoadedRun:
    """Read a run folder; ``entries`` are the experiments by name.

    Raises RunError for a folder without a finished run, for one that changed since, and for settings that this version does not
    know.
    """
    store = RunStore(folder)
    if problems := store.verify():
        raise RunError(f"{folder} cannot be loaded: {problems[0]}")
    facts = store.facts()
    assert facts is not None  # verified
    name = facts["analysis"]
    if name not in entries:
        raise RunError(f"{folder} holds a run of {name!r}, which this version does not have; it has {', '.join(entries)}")
    try:
        config = entries[name].config(**facts["config"])
    except ValidationError as error:
        wrong = ", ".join(str(e["loc"][0]) if e["loc"] else e["msg"] for e in error.errors())
        raise RunError(f"{folder} was made by another version: its settings do not fit here ({wrong})") from error
    rows = pd.read_parquet(io.BytesIO((folder / "results.parquet").read_bytes()))
    findings = tuple(Finding.of(data) for data in json.loads((folder / "findings.json").read_text()))
    units = tuple(sorted(path.stem for path in (folder / "shards").glob("*.safetensors")))
    return LoadedRun(folder, name, config, rows, findings, facts, units, entries[name].facts)
