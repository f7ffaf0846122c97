"""A finished run, read back: its settings as typed, rows, findings, and the tensors of its units."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cos_interp.analyses.driver import manifest, older
from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.facts import Facts
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.analyses.driver.store import RunStore
from cos_interp.interp.files import read_regular
from cos_interp.reports.framed import MOST, framed

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


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

    def _repr_html_(self) -> str:
        """For notebooks: the page of the run, where it is as it was written and not too large for a notebook."""
        told = f"<p>{escape(repr(self)[1:-1])}</p>"
        try:
            page = RunStore(self.folder).read(manifest.REPORT)
        except (RunError, OSError) as error:
            return f"{told}<p>The page cannot be shown: {escape(str(error))}</p>"
        if len(page) > MOST:
            return f"{told}<p>Too large to be shown here: <code>{escape(str(self.folder / manifest.REPORT))}</code></p>"
        return told + framed(page.decode(), f"{self.name} in {self.folder}")


def read(folder: Path, entries: Mapping[str, Entry]) -> LoadedRun:
    """Read a run folder; ``entries`` are the experiments by name. Results and findings are checked now, units when they are read.

    Raises RunError, which names the file, for a folder without a finished run, for one that changed since, and for files that
    this version did not write.
    """
    facts, entry, config = opened(folder, entries)
    store = RunStore(folder)
    units = tuple(sorted(path.stem for path in (folder / "shards").glob("*.safetensors")))
    return LoadedRun(folder, entry.name, config, _rows(store), findings_in(store), facts, units, entry.facts)


def opened(folder: Path, entries: Mapping[str, Entry]) -> tuple[dict[str, Any], Entry, AnalysisConfig]:
    """``run.json`` of a finished run, the experiment that made it, and its settings. RunError where there is none."""
    facts = facts_of(folder)
    if facts.get("status") != "complete":
        raise RunError(f"the run in {folder} is {facts.get('status')}: continue it with the same command")
    return facts, *asked_of(folder, facts, entries)


def facts_of(folder: Path) -> dict[str, Any]:
    """``run.json`` of a run in any state. RunError where there is none."""
    if folder.is_file():
        raise RunError(f"{folder} is a file: give the run folder, which holds {manifest.RUN}")
    facts = RunStore(folder).facts()
    if facts is None:
        raise RunError(f"{folder} holds no run: it has no {manifest.RUN}")
    return facts


def asked_of(folder: Path, facts: Mapping[str, Any], entries: Mapping[str, Entry]) -> tuple[Entry, AnalysisConfig]:
    """The experiment and the settings that a ``run.json`` says. RunError for those that this version does not have."""
    entry = _entry(folder, facts, entries)
    return entry, _config(folder, facts, entry)


AGAIN = "run the same command again with --fresh"


def _entry(folder: Path, facts: Mapping[str, Any], entries: Mapping[str, Entry]) -> Entry:
    """The experiment that made a run."""
    name = facts.get("analysis")
    if not isinstance(name, str) or name not in entries:
        raise RunError(f"{folder} holds a run of {name!r}, which this version does not have; it has {', '.join(entries)}")
    return entries[name]


def _config(folder: Path, facts: Mapping[str, Any], entry: Entry) -> AnalysisConfig:
    try:
        return entry.config.model_validate(facts.get("config"))
    except ValidationError as error:
        wrong = ", ".join(str(e["loc"][0]) if e["loc"] else e["msg"] for e in error.errors())
        raise RunError(f"{folder} was made by another version: its settings do not fit here ({wrong}); {AGAIN}") from error


def _rows(store: RunStore) -> pd.DataFrame:
    try:
        import pandas as pd

        return pd.read_parquet(io.BytesIO(store.read(manifest.RESULTS)))
    except ValueError as error:  # pyarrow's errors are ValueErrors
        raise RunError(f"{store.folder / manifest.RESULTS} is no table ({error}): {AGAIN}") from error


def findings_in(store: RunStore) -> tuple[Finding, ...]:
    path = store.folder / manifest.FINDINGS
    if not path.is_file() and older.is_of_0_1(read_regular(store.folder / manifest.RUN)):  # which kept none
        return ()
    try:
        held = json.loads(store.read(manifest.FINDINGS))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is no JSON ({error}): {AGAIN}") from error
    if not isinstance(held, list):
        raise RunError(f"{path} holds {type(held).__name__}, not a list of findings: {AGAIN}")
    try:
        return tuple(map(Finding.of, held))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "a finding"
        raise RunError(f"{path} was made by another version ({where}: {first['msg']}): {AGAIN}") from error
