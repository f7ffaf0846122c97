"""A finished dossier once more, without a model: its page drawn again, and everything in one file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cos_interp.analyses.dossier import ENTRY, ExperimentFacts
from cos_interp.analyses.dossier.page import build, concluded, figures, files
from cos_interp.analyses.driver import manifest
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.loaded import opened
from cos_interp.analyses.driver.lock import Writer
from cos_interp.analyses.driver.store import RunStore
from cos_interp.reports.nested import nested

MOST = 24_000_000  # characters of one file: what most mail servers take


def read(folder: Path) -> AnalysisResult:
    """What a finished dossier found. RunError where there is none."""
    facts, _, config = opened(folder, {ENTRY.name: ENTRY})
    store = RunStore(folder, ENTRY.facts)
    units = {name: store.finished(name)[1] for name in facts["parts"]}
    return concluded(AnalysisResult(ENTRY.name, config, pd.DataFrame(), facts, units))


def draw_again(folder: Path) -> Path:
    """Write the page of a finished dossier again; those of its experiments stay as they are."""
    result = read(folder)
    try:
        with Writer(folder).holding() as writer:
            drawn = figures(folder, result.units_of(ExperimentFacts))
            RunStore(folder, ENTRY.facts, writer).write_page(files(build(result, drawn), drawn))
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {error.strerror}") from error
    return folder / manifest.REPORT


def in_one_file(folder: Path, most: int = MOST) -> str:
    """The dossier's page with the pages of all its experiments below it, whose files must be as they were written.

    Beyond ``most`` characters the largest clips are left out, from each page alike.
    """
    result = read(folder)
    units = result.units_of(ExperimentFacts)
    there = [name for name, unit in units.items() if not unit.error]
    pages = {name: RunStore(folder / name).read(manifest.REPORT).decode() for name in there}
    parts = {name: nested(page, name, most // max(1, len(pages))) for name, page in pages.items()}
    return build(result, figures(folder, units), parts).html
