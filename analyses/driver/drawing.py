"""Drawing the page of a finished run again: from what it left, without a model, as the folder's one writer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cos_interp.analyses.driver import experiment, identity, manifest, rules, twins
from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.experiment import Experiment, Report
from cos_interp.analyses.driver.loaded import opened
from cos_interp.analyses.driver.lock import Writer
from cos_interp.analyses.driver.registry import entries, load
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.analyses.driver.store import RunStore


def draw_again(folder: Path, known: Mapping[str, Entry]) -> Path:
    """The page of a finished run, written again with its list, whatever became of the page before.

    Units and results are not touched; ``run.json`` says which rules judged. RunError where it cannot be. ``known``: experiments
    by name, and the dossier.
    """
    drawn_again(folder, known)
    return folder / manifest.REPORT


def drawn_again(folder: Path, known: Mapping[str, Entry]) -> Report:
    """As :func:`draw_again`; what was written. The runs of its twins come first: one rule judges both."""
    made, config = drawable(folder, known)
    beside = [twin for twin in twins.names(config.twins) if (RunStore(folder / twin).facts() or {}).get("status") == "complete"]
    for twin in beside:
        drawn_again(folder / twin, known)
    try:
        with Writer(folder).holding() as writer:
            store = RunStore(folder, made.facts, writer, parts=twins.names(config.twins))
            if problem := store.damaged_results():  # which would stand beside a new page
                raise RunError(f"{problem}; the same command makes it again of the units")
            report = experiment.drawn(made, config, store)
            store.write_page(report.files())
            store.judged_by(rules.shown_digest())
            if beside:  # its list has their run.json
                store.refuse_others(name for _, names in made.pieces(config) for name in names)
                store.complete()
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {error.strerror}") from error
    return report


def report_of(folder: Path, known: Mapping[str, Entry]) -> Report:
    """The report of a finished run, drawn from what it left; nothing is written. RunError where it cannot be."""
    made, config = drawable(folder, known)
    return experiment.drawn(made, config, RunStore(folder, made.facts))


def drawable(folder: Path, known: Mapping[str, Entry]) -> tuple[Experiment, AnalysisConfig]:
    """The experiment and the settings of a run that can be drawn. RunError for a dossier, and for a run of the user's code."""
    _, entry, config = opened(folder, known)
    if entry.name not in entries():
        raise RunError(f"{folder} is a dossier: draw the runs in it, like {folder}/recovery")
    if identity.is_of_own_code(config):
        raise RunError(f"{folder} was made with code of its own, which only its command executes: run its command again")
    return load(entry.name), config
