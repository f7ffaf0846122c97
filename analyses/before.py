"""What a command of ``cos analyze`` says and refuses before its run begins: of an experiment, and of the dossier."""

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

SAY: Callable[[str], None] = partial(typer.echo, err=True)


@dataclass(frozen=True)
class OfExperiment:
    """``workers``: processes, None for one a core."""

    entry: Entry
    out: Path
    workers: int | None

    def plan(self, config: AnalysisConfig, as_json: bool) -> None:
        """Print what the run will take. Exits with 1 where it does not fit."""
        found = self._forecast(config, timed=True)
        if as_json:
            print_json(found.data())
        for line in [] if as_json else found.lines():
            typer.echo(line)
        if found.plan.problems:
            raise typer.Exit(1)

    def refuse(self, config: AnalysisConfig) -> None:
        """Exit with 1, and the plan, where the run does not fit within what was stated."""
        found = self._forecast(config, timed=False)
        if found.plan.problems:
            for line in found.lines():
                SAY(line)
            raise typer.Exit(1)

    def ways(self, config: AnalysisConfig) -> dict[str, Any]:
        """What says, once the model is there, what a long run takes."""
        from cos_interp.analyses.driver.ahead import announce

        return {"ahead": partial(announce, self.entry, self.out, self.workers, SAY)}

    def _forecast(self, config: AnalysisConfig, timed: bool) -> Any:
        from cos_interp.analyses.driver.planning import forecast

        return forecast(self.entry.name, config, self.out, self.workers, timed=timed)


@dataclass(frozen=True)
class OfDossier:
    """The same of all its experiments."""

    out: Path
    workers: int | None

    def plan(self, config: Any, as_json: bool) -> None:
        """Print what each experiment will take. Exits with 1 where one does not fit."""
        found = self._parts(config)
        if as_json:
            print_json({"experiments": [part.data() for part in found], "budget_seconds": sum(part.allowed for part in found)})
        self._told(config, found, None if as_json else typer.echo)

    def refuse(self, config: Any) -> None:
        """Exit with 1, and the plan, where an experiment does not fit within what was stated."""
        found = self._parts(config)
        self._told(config, found, SAY if any(map(_fails, found)) else None)

    def _parts(self, config: Any) -> list[Any]:
        from cos_interp.analyses.dossier import foresee

        return list(foresee.parts(config, self.out, self.workers))

    def _told(self, config: Any, found: list[Any], say: Callable[[str], None] | None) -> None:
        from cos_interp.analyses.dossier import foresee

        if say is not None:
            for line in foresee.lines(config, found):
                say(line)
        if any(map(_fails, found)):
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


def _fails(part: Any) -> bool:
    return bool(part.found and part.found.plan.problems)
