"""The experiments: ``EXPERIMENTS`` says what there is, :func:`run` runs one, :func:`load` reads a finished run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.registry import entries

if TYPE_CHECKING:
    from cos_interp.analyses.driver.base import AnalysisResult
    from cos_interp.analyses.driver.experiment import Report

__all__ = ["EXPERIMENTS", "runner"]


def _all() -> dict[str, Entry]:
    from cos_interp.analyses import dossier

    return {**entries(), dossier.ENTRY.name: dossier.ENTRY}


EXPERIMENTS = _all()


def runner(name: str) -> Callable[..., tuple[AnalysisResult, Report]]:
    """``runner(name)(config, folder, fresh=..., workers=..., progress=...)``: run, report, and what was found."""
    if name in entries():
        from cos_interp.analyses.driver import experiment, registry

        return partial(experiment.run_and_report, registry.load(name))
    from cos_interp.analyses.dossier.run import run_and_report

    return run_and_report
