"""The experiments by name. Each is a folder of analyses/ that says all about itself; here is only the list."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from cos_interp.analyses.driver.entry import Entry

if TYPE_CHECKING:
    from cos_interp.analyses.driver.experiment import Experiment
    from cos_interp.analyses.driver.outlook import Outlook, Use

FOLDERS = (
    "patching", "chain_of_steps", "commitment", "self_correction", "ensemble", "noise", "propagation", "recovery", "layers",
    "posterior", "seed_choice", "swap", "trajectory", "memory", "attention", "perception", "probing",
    "circuit", "steering", "plausibility", "diff", "acceleration", "seeds", "step_budget", "averaging", "lengths",
)  # fmt: skip
# of measure.py; all but the first two where an experiment has them
_PARTS = ("pieces", "work", "check", "settle", "needs", "finish", "modelless")


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


def foresight(name: str) -> Callable[[Any, Outlook], list[Use]] | None:
    """What an experiment says of the runs that it will make, in its ``foresee.py``; None where it has none."""
    folder = entries()[name].folder
    return import_module(f"{folder}.foresee").foresee if find_spec(f"{folder}.foresee") else None
