"""An experiment: pieces of work -> units on disk -> rows -> report. One driver runs them all, resumes them, shares them out."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor

from cos_interp.analyses.driver import identity, manifest, processor, twins
from cos_interp.analyses.driver.base import AnalysisResult, Config, Progress
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.facts import Facts
from cos_interp.analyses.driver.settings import AnalysisConfig, Loading
from cos_interp.analyses.driver.shard import Shard
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.driver.watch import Watch
from cos_interp.analyses.driver.workers import WorkerFailed, default_workers, scatter
from cos_interp.interp.call import own_words, unknown_keyword
from cos_interp.interp.errors import InterpError
from cos_interp.interp.files import plain
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.refusing import refused

if TYPE_CHECKING:
    from cos_interp.reports.drawing import Drawing


@dataclass(frozen=True)
class Unit:
    """What one finished unit leaves: result rows, tensors (``facts.axes`` names their axes), facts."""

    rows: list[Row]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)


@dataclass(frozen=True)
class Report:
    """What a run says: plain lines for the terminal, data for ``--json``, the page, and files for ``media/``.

    ``figures``: drawings by their names among ``media``, in the order of the page. ``told``: its question, method and source.
    """

    lines: list[str]
    data: dict[str, Any]
    html: str
    media: dict[str, bytes] = field(default_factory=dict)
    figures: Mapping[str, Drawing] = field(default_factory=dict)
    told: Mapping[str, str] = field(default_factory=dict)

    def files(self) -> dict[str, bytes]:
        """What is written to the run folder, by name."""
        findings = json.dumps(plain(self.data.get("findings", [])), indent=1, allow_nan=False) + "\n"
        media = {f"{manifest.MEDIA}/{name}": data for name, data in self.media.items()}
        return {manifest.REPORT: self.html.encode(), manifest.FINDINGS: findings.encode(), **media}


Work = Callable[[Any, Any, RunStore, Any], Iterator[str]]  # the model; None where the experiment needs none


@dataclass(frozen=True)
class Experiment:
    """``pieces``: parts of the work, each with the names of its units. ``work`` does one piece and yields the name of each unit
    that is on disk. ``needs``: the units of other pieces that must be on disk before a piece begins. ``settle``: the settings
    with what the model and the machine decide, given those of the run that is continued (none of a new one). ``report`` is pure
    of models. ``facts``: the records that its units leave, beside the common ones. ``modelless``: whether these settings need no
    model, which is None then."""

    name: str
    config: type[AnalysisConfig]
    pieces: Callable[[Any], Sequence[tuple[Any, list[str]]]]
    work: Work
    report: Callable[[AnalysisResult, RunStore], Report]
    check: Callable[[Any, Any], None] = lambda config, model: None
    settle: Callable[[Any, HookedVideoPipeline, Mapping[str, Any]], Any] = lambda config, model, held: config
    needs: Callable[[Any, Any], Sequence[str]] = lambda config, piece: ()
    finish: Callable[[AnalysisResult], AnalysisResult] = lambda result: result
    facts: Sequence[type[Facts]] = ()
    modelless: Callable[[Any], bool] = lambda config: False


def each_unit(measure: Callable[[Any, Any, Any], Unit], name: Callable[[Any], str] = attrgetter("name")) -> Work:
    """The work of an experiment whose pieces are one unit each; ``name`` is that of a piece's unit."""

    return from_others(lambda model, config, store, piece: measure(model, config, piece), name)


def from_others(make: Callable[[Any, Any, RunStore, Any], Unit], name: Callable[[Any], str] = attrgetter("name")) -> Work:
    """As :func:`each_unit`, of pieces that read the units of others."""

    def work(model: Any, config: Any, store: RunStore, piece: Any) -> Iterator[str]:
        if store.unit(name(piece)) is None:
            unit = make(model, config, store, piece)
            store.add_unit(name(piece), unit.rows, unit.tensors, unit.facts)
        yield name(piece)

    return work


def load_model(config: Loading) -> HookedVideoPipeline:
    """The model of some settings, where and in the numbers that they say."""
    placing = config.placing()
    given = {"dtype": placing.type()} | ({"revision": config.revision} if config.revision else {})
    model = HookedVideoPipeline.from_pretrained(config.model, **given)
    placing.place(model.pipe)
    return model


def told(model: HookedVideoPipeline, config: Loading) -> None:
    """Let every call of a model have what its settings say. InterpError for keywords, and values, that its pipeline refuses."""
    if wrong := unknown_keyword(model.pipe, config.call()) or refused(model.pipe, own_words(model.pipe, config.call())):
        raise InterpError(wrong)
    model.defaults |= own_words(model.pipe, config.call())


def settled(config: Config, model: HookedVideoPipeline) -> Config:
    """The settings with the steps and guidance of a model's own pipeline where nothing was said.

    A model that says how it is called (the organism, tiny ones, a folder with ``call_defaults.json``) was made for small runs: it
    keeps the experiment's own steps, and guidance where it says none.
    """
    unsaid = [name for name in config.OWN if name not in config.model_fields_set and name in type(config).model_fields]
    said = {"guidance_scale": model.defaults.get("guidance_scale")} if model.small else {n: model.default(n) for n in unsaid}
    own = {name: value for name in unsaid if (value := said.get(name)) is not None}
    return config.model_copy(update=own)


def loaded(config: Config) -> tuple[Config, HookedVideoPipeline]:
    """The model of some settings, told what they say of every call, and the settings as they hold for it."""
    model = load_model(config)
    config = settled(config, model)
    told(model, config)
    return config, model


Pieces = Sequence[tuple[Any, list[str]]]  # each with the names of its units


def waves(pieces: Pieces, needs: Callable[[Any], Sequence[str]]) -> Iterator[list[Any]]:
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


def ordered(experiment: Experiment, config: Any, pieces: Pieces) -> list[Pieces]:
    """The pieces of an experiment, each with its units, in groups: see :func:`waves`."""
    made = [(one, one[1]) for one in pieces]
    return list(waves(made, lambda one: experiment.needs(config, one[0])))


@dataclass(frozen=True)
class Ways:
    """How a run is computed, which changes no number. ``model``: a loaded one instead of the settings' own; ``loaded``: whether
    it is that of the settings all the same. ``ahead``: told the settings and the model of a run before it begins; not of one that
    goes on, nor of its twins. ``shard``: the share of the work that is done."""

    model: HookedVideoPipeline | None = None
    loaded: bool = False
    fresh: bool = False
    workers: int | None = None
    progress: Progress = lambda done, total, what: None
    accept_versions: bool = False
    ahead: Callable[[Any, HookedVideoPipeline], None] = lambda config, model: None
    shard: Shard | None = None


def run(experiment: Experiment, config: AnalysisConfig, folder: Path, **ways: Any) -> AnalysisResult:
    """Compute, or continue, a run in ``folder``, without a page; ``ways`` are the fields of :class:`Ways`.

    Raises RunError for a folder that does not fit.
    """
    with _computed(experiment, config, folder, Ways(**ways)) as (result, _):
        return result


def run_and_report(experiment: Experiment, config: AnalysisConfig, folder: Path, **ways: Any) -> tuple[AnalysisResult, Report]:
    """As :func:`run`, then draw the page and mark the run complete."""
    with _computed(experiment, config, folder, Ways(**ways)) as (result, begun):
        beside(begun, run_and_report)
        return concluded(experiment, result, begun.store, begun.workers)


def concluded(
    experiment: Experiment, result: AnalysisResult, store: RunStore, workers: int
) -> tuple[AnalysisResult, Report]:  # fmt: skip
    """Write the page of a run whose units and results are there, and mark it complete."""
    result = _shown(result, store, workers)
    report = experiment.report(result, store)
    store.write_page(report.files())
    made = result.facts.get("processors")
    store.complete(**({"processors": made} if made else {}))
    return result, report


@dataclass(frozen=True)
class Begun:
    """A run that is open for writing. ``config``: the settings as they hold for the model. ``waves``: its pieces in groups, each
    of which needs units of earlier ones only."""

    experiment: Experiment
    config: AnalysisConfig
    ways: Ways
    model: HookedVideoPipeline | None
    store: RunStore
    waves: Sequence[Pieces]
    workers: int

    def units(self, pieces: Pieces | None = None) -> list[str]:
        """The names of the units of some pieces, or of all."""
        return [unit for _, units in (chain(*self.waves) if pieces is None else pieces) for unit in units]

    def compute(self, pieces: Pieces) -> Iterator[str]:
        """Do what is missing of some pieces that lack nothing; yields the name of each unit that is on disk."""

        def job(piece: tuple[Any, list[str]]) -> Iterator[str]:
            yield from self.experiment.work(self.model, self.config, self.store, piece[0])

        yield from scatter(job, pieces, min(self.workers, len(pieces)))


def beside(begun: Begun, play: Callable[..., Any]) -> None:
    """The same on the twins, each in a run inside this one, by ``play``, which is called as :func:`run_and_report` is. A twin
    that cannot be made, or on which it cannot run, shows nothing."""
    if begun.model is None:
        return
    for number, name in enumerate(twins.names(begun.config.twins)):
        try:
            _on_a_twin(begun, begun.model, number, name, play)
        except (ValueError, RuntimeError) as error:
            if isinstance(error, (RunError, WorkerFailed)):
                raise
            warnings.warn(f"{name}: {error}", stacklevel=2)
            if RunStore(begun.store.folder / name).facts() is None:
                begun.store.note_unmade(name, f"{type(error).__name__}: {error}")
    if begun.config.twins:
        twins.gone(begun.model)


def _on_a_twin(begun: Begun, model: HookedVideoPipeline, number: int, name: str, play: Callable[..., Any]) -> None:
    """The run of a twin of a model, which is gone before the next one is made."""
    progress = partial(_named, begun.ways.progress, name)
    told = replace(begun.ways, model=twins.twin_of(model, number), progress=progress, ahead=Ways.ahead)
    play(begun.experiment, begun.config.beside(), begun.store.folder / name, **vars(told))


def _named(progress: Progress, name: str, done: int, total: int, what: str) -> None:
    progress(done, total, f"{name}: {what}")


def _model_of(experiment: Experiment, config: Config, ways: Ways) -> tuple[Config, HookedVideoPipeline | None]:
    """The model of a run, None where its settings need none, and the settings as they hold for it."""
    if experiment.modelless(config):
        return config, None
    return loaded(config) if ways.model is None else (settled(config, ways.model), ways.model)


@contextlib.contextmanager
def begin(experiment: Experiment, config: AnalysisConfig, folder: Path, ways: Ways) -> Iterator[Begun]:
    """A run as its writer, or one of its shards, holds it for the length of a block. RunError for a folder that does not fit."""
    # first: a name without a model is the cheapest mistake
    config, model = _model_of(experiment, config, ways)
    experiment.check(config, model)
    held = None if ways.fresh else RunStore(folder).facts()
    if model is not None:
        config = experiment.settle(config, model, (held or {}).get("config", {}))
        if held is None:
            ways.ahead(config, model)
    watch = Watch(config)
    pieces = list(experiment.pieces(config))
    order = ordered(experiment, config, pieces)
    workers = default_workers() if ways.workers is None else ways.workers
    derived = [unit for piece, units in pieces if experiment.needs(config, piece) for unit in units]
    with threads(1 if workers > 1 else None) as count:
        asked = identity.of(experiment.name, config, model, count, ways.model is not None and not ways.loaded, watch.held)
        parts = twins.names(config.twins)
        with RunStore.open(
            folder, asked, ways.fresh, experiment.facts, ways.accept_versions, derived, parts, ways.shard
        ) as store:  # fmt: skip
            store.before_unit = watch.check
            store.made = {"processor": processor.kind_of(model), "threads": str(count)}
            store.processes = max(1, min(workers, len(pieces)))
            store.refuse_others(unit for _, units in pieces for unit in units)
            yield Begun(experiment, config, ways, model, store, order, workers)


@contextlib.contextmanager
def _computed(
    experiment: Experiment, config: AnalysisConfig, folder: Path, ways: Ways
) -> Iterator[tuple[AnalysisResult, Begun]]:  # fmt: skip
    with begin(experiment, config, folder, ways) as begun:
        name_damaged(begun.store, begun.units())
        total = len(begun.units())
        ways.progress(0, total, experiment.name)
        for done, unit in enumerate((unit for wave in begun.waves for unit in begun.compute(wave)), 1):
            ways.progress(done, total, unit)
        begun.store.before_unit()
        result = experiment.finish(collect(experiment, begun.config, begun.store))
        begun.store.write_results(result.rows)
        yield result, begun


@contextlib.contextmanager
def threads(wanted: int | None) -> Iterator[int]:
    """So many of torch's threads for the length of a block; None leaves them. Yields their number, on which rounding depends."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(wanted or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def name_damaged(store: RunStore, units: Sequence[str]) -> None:
    """Say which units, and whether the results, are not what was written; they are made again."""
    if (store.facts() or {}).get("status") == "complete" and (problem := store.damaged_results()):
        warnings.warn(f"{problem}; it is made again of the units", stacklevel=3)
    for unit in store.damaged(units):
        path = store.unit_path(unit)
        warnings.warn(f"{path} is damaged: it is not used, and computed again", stacklevel=3)
        path.unlink(missing_ok=True)  # another shard may have found it too


def collect(experiment: Experiment, config: AnalysisConfig, store: RunStore) -> AnalysisResult:
    """Read all units of a finished run, in the order of the pieces. RunError for one that is missing or damaged."""
    rows: list[Row] = []
    units = {}
    for _, names in experiment.pieces(config):
        for name in names:
            found, units[name] = store.finished(name)
            rows += found
    mixed = processor.mixed([store.made_on(name) for name in units])
    facts = (store.facts() or {}) | ({"processors": mixed} if mixed else {})
    return AnalysisResult(experiment.name, config, pd.DataFrame(rows), facts, units)


def drawn(experiment: Experiment, config: AnalysisConfig, store: RunStore) -> Report:
    """The report of a finished run again, from what it left, without a model. Writes nothing."""
    result = experiment.finish(collect(experiment, config, store))
    return experiment.report(_shown(result, store, default_workers()), store)


def _shown(result: AnalysisResult, store: RunStore, workers: int) -> AnalysisResult:
    """A result as it is reported: beside its twins, its pictures drawn by so many processes."""
    return replace(result, twins=twins.shown(store.folder, result.config.twins), workers=workers)
