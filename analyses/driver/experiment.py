"""An experiment: pieces of work -> units on disk -> rows -> report. One driver runs them all, resumes them, shares them out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from cos_interp.analyses.driver.base import AnalysisResult, Progress
from cos_interp.analyses.driver.command import command_line
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.driver.workers import default_workers, scatter
from cos_interp.interp.files import weights_digest
from cos_interp.interp.model import ORGANISM, HookedVideoPipeline


@dataclass(frozen=True)
class Unit:
    """What one finished unit leaves: result rows, tensors with named axes (``facts["axes"]``), facts."""

    rows: list[Row]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What a run says: plain lines for the terminal, data for ``--json``, the page, and files for ``media/``."""

    lines: list[str]
    data: dict[str, Any]
    html: str
    media: dict[str, bytes] = field(default_factory=dict)


Work = Callable[[HookedVideoPipeline, Any, RunStore, Any], Iterator[str]]


@dataclass(frozen=True)
class Experiment:
    """``pieces``: independent parts of the work, each with the names of its units. ``work`` does one piece and yields the
    name of each unit that is on disk. ``report`` is pure of models."""

    name: str
    config: type[AnalysisConfig]
    pieces: Callable[[Any], Sequence[tuple[Any, list[str]]]]
    work: Work
    report: Callable[[AnalysisResult, RunStore], Report]
    check: Callable[[Any, HookedVideoPipeline], None] = lambda config, model: None
    finish: Callable[[AnalysisResult], AnalysisResult] = lambda result: result


def each_unit(measure: Callable[[HookedVideoPipeline, Any, Any], Unit], name: Callable[[Any], str] = attrgetter("name")) -> Work:
    """The work of an experiment whose pieces are one unit each; ``name`` is that of a piece's unit."""

    def work(model: HookedVideoPipeline, config: Any, store: RunStore, piece: Any) -> Iterator[str]:
        if store.unit(name(piece)) is None:
            unit = measure(model, config, piece)
            store.add_unit(name(piece), unit.rows, unit.tensors, unit.facts)
        yield name(piece)

    return work


def versions() -> dict[str, str]:
    from importlib.metadata import version

    packages = ("torch", "diffusers", "nnsight", "transformers", "numpy")
    return {"python": sys.version.split()[0]} | {p: version(p) for p in packages}


def model_facts(config: AnalysisConfig) -> dict[str, Any]:
    """The resolved model: where it is from, and the digest of its weights or the hub's revision."""
    folder = ORGANISM if config.model == "organism" else Path(config.model)
    digest = weights_digest(folder) if folder.is_dir() else None
    return {"name": config.model, "digest": digest, "revision": config.revision}


def load_model(config: AnalysisConfig) -> HookedVideoPipeline:
    return HookedVideoPipeline.from_pretrained(config.model, **({"revision": config.revision} if config.revision else {}))


def run(
    experiment: Experiment, config: AnalysisConfig, folder: Path, *, model: HookedVideoPipeline | None = None,
    fresh: bool = False, workers: int | None = None, progress: Progress = lambda done, total, what: None,
) -> AnalysisResult:  # fmt: skip
    """Compute, or continue, a run in ``folder``. Raises RunError for a folder that does not fit."""
    pieces = list(experiment.pieces(config))
    facts = {
        "analysis": experiment.name, "config": config.model_dump(mode="json"),
        "command": command_line(experiment.name, config), "model": model_facts(config), "versions": versions(),
    }  # fmt: skip
    model = model or load_model(config)
    experiment.check(config, model)
    store = RunStore.open(folder, facts, fresh)
    total = sum(len(names) for _, names in pieces)
    progress(0, total, experiment.name)
    count = min(default_workers() if workers is None else workers, len(pieces))

    def job(piece: Any) -> Iterator[str]:
        yield from experiment.work(model, config, store, piece)

    for done, unit in enumerate(scatter(job, [piece for piece, _ in pieces], count), 1):
        progress(done, total, unit)
    result = experiment.finish(collect(experiment, config, store))
    store.write_results(result.rows)
    return result


def collect(experiment: Experiment, config: AnalysisConfig, store: RunStore) -> AnalysisResult:
    """Read all units of a finished run, in the order of the pieces."""
    rows: list[Row] = []
    units = {}
    for _, names in experiment.pieces(config):
        for name in names:
            found, units[name] = store.unit(name)
            rows += found
    return AnalysisResult(experiment.name, config, pd.DataFrame(rows), store.facts() or {}, units)


def run_and_report(experiment: Experiment, config: AnalysisConfig, folder: Path, **options: Any) -> tuple[AnalysisResult, Report]:
    """Run, write the report and its media, and mark the run complete. Options as in :func:`run`."""
    result = run(experiment, config, folder, **options)
    store = RunStore(folder)
    report = experiment.report(result, store)
    for name, data in report.media.items():
        store.write(f"media/{name}", data)
    store.write("report.html", report.html.encode())
    store.complete({k: v for k, v in store.facts().items() if k != "status"})
    return result, report
