"""Drawing the page of a finished run again: from what it left, without a model, as the folder's one writer."""

from __future__ import annotations

from pathlib import Path

from cos_interp.analyses.driver import experiment, manifest
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.loaded import LoadedRun
from cos_interp.analyses.driver.lock import Writer
from cos_interp.analyses.driver.registry import entries, load
from cos_interp.analyses.driver.store import RunStore


def draw_again(run: LoadedRun) -> Path:
    """The page, written again with its list; units, results and ``run.json`` are not touched. RunError where it cannot be."""
    if run.name not in entries():
        raise RunError(f"{run.folder} is a dossier: draw the runs in it, like {run.folder}/recovery")
    made = load(run.name)
    try:
        with Writer(run.folder).holding() as writer:
            experiment.draw(made, run.config, RunStore(run.folder, made.facts, writer))
    except OSError as error:
        raise RunError(f"cannot write to {run.folder}: {error.strerror}") from error
    return run.folder / manifest.REPORT
