"""The experiments by name. Each is a folder of analyses/ that says all about itself; here is only the list."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from cos_interp.analyses.driver.entry import Entry

if TYPE_CHECKING:
    from cos_interp.analyses.driver.experiment import Experiment

FOLDERS = (
    "patching", "chain_of_steps", "commitment", "self_correction", "ensemble", "noise", "propagation", "recovery", "layers",
    "swap", "trajectory", "memory", "attention", "perception", "probing",
)  # fmt: skip
_PARTS = ("pieces", "work", "check", "settle", "needs", "finish")  # of measure.py; the last four where an experiment has them


@cache
def entries() -> dict[str, Entry]:
    """What every experiment says about itself, by the name of its command. Light."""
    found = [import_module(f"cos_interp.analyses.{folder}").ENTRY for folder in FOLDERS]
    return {entry.name: entry for entry in found}


def load(name: str) -> Experiment:
    """An experiment, put together from its ``measure.py`` and ``report.py``. KeyError for an unknown name."""
    from cos_interp.analyses.driver.experiment import Experiment

    entry = entries()[name]
    measure, report = (import_module(f"{entry.folder}.{part}") for part in ("measure", "report"))
    parts = {part: getattr(measure, part) for part in _PARTS if hasattr(measure, part)}
    return Experiment(name, entry.config, report=report.report, facts=entry.facts, **parts)
