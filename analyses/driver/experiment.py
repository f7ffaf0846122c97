"""An experiment: pieces of work -> units on disk -> rows -> report. One driver runs them all, resumes them, shares them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from graphlib import CycleError, TopologicalSorter
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from cos_interp.analyses.driver.base import AnalysisResult, Progress
from cos_interp.analyses.driver.facts import Facts
from cos_interp.analyses.driver.identity import given, named, run_facts
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.driver.workers import default_workers, scatter
from cos_interp.interp.model import HookedVideoPipeline


@dataclass(frozen=True)
class Unit:
    """What one finished unit leaves: result rows, tensors (``facts.axes`` names their axes), facts."""

    rows: list[Row]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)


@dataclass(frozen=True)
class Report:
    """What a run says: plain lines for the terminal, data for ``--json``, the page, and files for ``media/``."""

    lines: list[str]
    data: dict[str, Any]
    html: str
    media: dict[str, bytes] = field(default_factory=dict)
    figures: tuple[str, ...] = ()  # names among ``media``, in the order of the page


Work = Callable[[HookedVideoPipeline, Any, RunStore, Any], Iterator[str]]


@dataclass(frozen=True)
class Experiment:
    """``pieces``: parts of the work, each with the names of its units. ``work`` does one piece and yields the name of each unit
    that is on disk. ``needs``: the units of other pieces that must be on disk before a piece begins. ``report`` is pure of
    models. ``facts``: the records that its units leave, beside the common ones."""

    name: str
    config: type[AnalysisConfig]
    pieces: Callable[[Any], Sequence[tuple[Any, list[str]]]]
    work: Work
    report: Callable[[AnalysisResult, RunStore], Report]
    check: Callable[[Any, HookedVideoPipeline], None] = lambda config, model: None
    needs: Callable[[Any, Any], Sequence[str]] = lambda config, piece: ()
    finish: Callable[[AnalysisResult], AnalysisResult] = lambda result: result
    facts: Sequence[type[Facts]] = ()


def each_unit(measure: Callable[[HookedVideoPipeline, Any, Any], Unit], name: Callable[[Any], str] = attrgetter("name")) -> Work:
    """The work of an experiment whose pieces are one unit each; ``name`` is that of a piece's unit."""

    def work(model: HookedVideoPipeline, config: Any, store: RunStore, piece: Any) -> Iterator[str]:
        if store.unit(name(piece)) is None:
            unit = measure(model, config, piece)
            store.add_unit(name(piece), unit.rows, unit.tensors, unit.facts)
        yield name(piece)

    return work


def load_model(config: AnalysisConfig) -> HookedVideoPipeline:
    return HookedVideoPipeline.from_pretrained(config.model, **({"revision": config.revision} if config.revision else {}))


def waves(pieces: Sequence[tuple[Any, list[str]]], needs: Callable[[Any], Sequence[str]]) -> Iterator[list[Any]]:
    """The pieces in groups: what a group needs was made by the groups before it. Within a group the order is kept.

    Raises ValueError for a need that no piece makes, and for pieces that need each other.
    """
    maker = {unit: number for number, (_, units) in enumerate(pieces) for unit in units}
    wanted = [list(needs(piece)) for piece, _ in pieces]
    for number, units in enumerate(wanted):
        if lacking := [unit for unit in units if unit not in maker]:
            raise ValueError(f"piece {pieces[number][1][0]} needs unit {lacking[0]!r}, which no piece makes")
    sorter = TopologicalSorter({number: {maker[unit] for unit in units} for number, units in enumerate(wanted)})
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " -> ".join(pieces[number][1][0] for number in error.args[1])
        raise ValueError(f"pieces need each other in a circle: {circle}") from error
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        yield [pieces[number][0] for number in ready]
        sorter.done(*ready)


def run(experiment: Experiment, config: AnalysisConfig, folder: Path, **options: Any) -> AnalysisResult:
    """Compute, or continue, a run in ``folder``. Raises RunError for a folder that does not fit.

    Options: ``model``, a loaded one that is used as it is; ``identity``, what ``run.json`` says of it, where that is known
    better than from its weights in memory; ``fresh``, ``workers``, ``progress``.
    """
    return _computed(experiment, config, folder, **options)[0]


def _computed(
    experiment: Experiment, config: AnalysisConfig, folder: Path, model: HookedVideoPipeline | None = None,
    identity: dict[str, Any] | None = None, fresh: bool = False, workers: int | None = None,
    progress: Progress = lambda done, total, what: None,
) -> tuple[AnalysisResult, RunStore]:  # fmt: skip
    loaded = model or load_model(config)  # before the pieces: a name that no model has costs no work
    identity = identity or (named(config) if model is None else given(model))
    experiment.check(config, loaded)
    pieces = list(experiment.pieces(config))
    order = list(waves(pieces, partial(experiment.needs, config)))
    store = RunStore.open(folder, run_facts(experiment.name, config, identity), fresh, experiment.facts)
    total = sum(len(names) for _, names in pieces)
    progress(0, total, experiment.name)
    count = default_workers() if workers is None else workers

    def job(piece: Any) -> Iterator[str]:
        yield from experiment.work(loaded, config, store, piece)

    stored = (unit for wave in order for unit in scatter(job, wave, min(count, len(wave))))
    for done, unit in enumerate(stored, 1):
        progress(done, total, unit)
    result = experiment.finish(collect(experiment, config, store))
    store.write_results(result.rows)
    return result, store


def collect(experiment: Experiment, config: AnalysisConfig, store: RunStore) -> AnalysisResult:
    """Read all units of a finished run, in the order of the pieces."""
    rows: list[Row] = []
    units = {}
    for _, names in experiment.pieces(config):
        for name in names:
            found, units[name] = store.finished(name)
            rows += found
    return AnalysisResult(experiment.name, config, pd.DataFrame(rows), store.facts() or {}, units)


def run_and_report(experiment: Experiment, config: AnalysisConfig, folder: Path, **options: Any) -> tuple[AnalysisResult, Report]:
    """Run, write the report and its media, and mark the run complete. Options as in :func:`run`."""
    result, store = _computed(experiment, config, folder, **options)
    report = experiment.report(result, store)
    for name, data in report.media.items():
        store.write(f"media/{name}", data)
    store.write("report.html", report.html.encode())
    store.write_json("findings.json", report.data.get("findings", []))
    store.complete({k: v for k, v in store.facts().items() if k != "status"})
    return result, report
