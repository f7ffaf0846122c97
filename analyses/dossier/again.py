"""A finished dossier once more, without a model: its page drawn again, and everything in one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from cos_interp.analyses.dossier import ENTRY, ExperimentFacts
from cos_interp.analyses.dossier.page import build, concluded, figures, files, said_of, shown_rows
from cos_interp.analyses.driver import identity, manifest, rules
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.drawing import drawn_again
from cos_interp.analyses.driver.entry import Entry
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
    """Draw the pages of a finished dossier's experiments again, take over what they say now, and write its own page."""
    from cos_interp.analyses import EXPERIMENTS

    facts = opened(folder, {ENTRY.name: ENTRY})[0]
    try:
        with Writer(folder).holding() as writer:
            store = RunStore(folder, ENTRY.facts, writer, parts=facts["parts"])
            for name in facts["parts"]:
                _take_over(store, name, EXPERIMENTS)
            result = read(folder)
            store.write_results(shown_rows(result))
            drawn = figures(folder, result.units_of(ExperimentFacts))
            store.write_page(files(build(result, drawn), drawn))
            store.judged_by(rules.shown_digest())
            store.complete()
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {error.strerror}") from error
    return folder / manifest.REPORT


def _take_over(store: RunStore, name: str, known: Mapping[str, Entry]) -> None:
    """What an experiment says when its page is drawn again. One that failed, or that only its command can run, stays as it is."""
    unit = store.finished(name)[1]
    assert isinstance(unit, ExperimentFacts)
    if unit.error or name not in known or identity.is_of_own_code(opened(store.folder / name, known)[2]):
        return
    processor, threads = store.made_on(name)
    store.made = {"processor": processor, "threads": threads} if processor else {}
    store.add_unit(name, [], {}, unit.model_copy(update=said_of(drawn_again(store.folder / name, known))))


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
