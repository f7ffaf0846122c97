"""One line about a run folder, whatever its state."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cos_interp.analyses.driver import manifest
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.store import RunStore


@dataclass(frozen=True)
class Overview:
    """``written``: when ``run.json`` was last written, local time. ``size``: bytes of all files. ``items``: of the
    settings, or the entries of the user's own file."""

    run: str
    written: str
    size: int
    analysis: str
    model: str
    items: int | None
    status: str

    def data(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)

    def line(self) -> str:
        """For a terminal."""
        items = "" if self.items is None else f"{self.items} items"
        return f"{self.run}  {self.written}  {self.size / 1e6:.1f} MB  {self.analysis}  {self.model}  {items}  {self.status}"


def overview(folder: Path) -> Overview:
    """What can be said of a run folder; a damaged one says so in its status."""
    try:
        facts = RunStore(folder).facts() or {}
    except RunError as error:
        facts = {"status": f"damaged: {error}"}
    config, model = facts.get("config", {}), facts.get("model", {})
    given = [sum(name.startswith("entry") for name in held) for held in facts.get("inputs", {}).values()]
    items = max(given, default=0) or config.get("items") or config.get("pairs")
    written = datetime.fromtimestamp((folder / manifest.RUN).stat().st_mtime).isoformat(" ", "minutes")
    size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
    name, analysis = str(model.get("name", "?")), str(facts.get("analysis", "?"))
    return Overview(str(folder), written, size, analysis, name, items, str(facts.get("status", "?")))
