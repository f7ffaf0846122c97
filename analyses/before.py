"""What comes before a run, of an experiment and of the dossier: a run that does not fit is refused; what a command says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cos_interp.analyses.dossier import ENTRY as DOSSIER
from cos_interp.analyses.driver.entry import Entry
from cos_interp.interp.terminal import print_json

if TYPE_CHECKING:
    from cos_interp.analyses.driver.settings import AnalysisConfig
    from cos_interp.interp.model import HookedVideoPipeline

SAY: Callable[[str], None] = partial(typer.echo, err=True)


@dataclass(frozen=True)
class OfExperiment:
    """``workers``: processes, None for one a core."""

    entry: Entry
    out: Path
    workers: int | None

    def plan(self, config: AnalysisConfig, as_json: bool) -> None:
        """Print what the run will take. Exits with 1 where it does not fit."""
        from cos_interp.analyses.driver.planning import forecast

        found = forecast(self.entry.name, config, self.out, self.workers)
        if as_json:
            print_json(found.data())
        for line in [] if as_json else found.lines():
            typer.echo(line)
        if found.plan.problems:
            raise typer.Exit(1)

    def ways(self, config: AnalysisConfig) -> dict[str, Any]:
        """What says, once the model is there, what a long run takes."""
        from cos_interp.analyses.driver.ahead import announce

        return {"ahead": partial(announce, self.entry, self.out, self.workers, SAY)}


@dataclass(frozen=True)
class OfDossier:
    """The same of all its experiments."""

    out: Path
    workers: int | None

    def plan(self, config: Any, as_json: bool) -> None:
        """Print what each experiment will take. Exits with 1 where one does not fit."""
        from cos_interp.analyses.dossier import foresee

        found = list(foresee.parts(config, self.out, self.workers))
        if as_json:
            print_json({"experiments": [part.data() for part in found], "budget_seconds": sum(part.allowed for part in found)})
        for line in [] if as_json else foresee.lines(config, found):
            typer.echo(line)
        if foresee.unfit(found):
            raise typer.Exit(1)

    def ways(self, config: Any) -> dict[str, Any]:
        """Say how long it takes; a dossier tells nothing more."""
        from cos_interp.analyses.dossier.run import expected

        if said := expected(config):
            SAY(said)
        return {}


def before(entry: Entry, out: Path, workers: int | None) -> OfExperiment | OfDossier:
    """What comes before a run of an analysis."""
    return OfDossier(out, workers) if entry is DOSSIER else OfExperiment(entry, out, workers)


def refuse_over(
    name: str, config: Any, folder: Path, workers: int | None = None, model: HookedVideoPipeline | None = None
) -> None:
    """InterpError, which names what takes how much and what would make it fit, for a run that takes more than its settings state;
    without such limits nothing is planned. ``model``: a loaded one, else that of the settings, of which no weights are read."""
    if not config.limits():
        return
    if name == DOSSIER.name:
        from cos_interp.analyses.dossier import foresee

        foresee.refuse(config, folder, workers, model)
        return
    from cos_interp.analyses.driver import planning

    planning.refuse(name, config, folder, workers, model)
