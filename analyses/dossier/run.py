"""``cos analyze all``: every experiment, and one page with the verdict on each claim."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cos_interp.analyses.dossier import ENTRY, DossierConfig, ExperimentFacts, alike
from cos_interp.analyses.dossier.page import build, concluded, figures, files, said_of, shown_rows
from cos_interp.analyses.driver import experiment, identity
from cos_interp.analyses.driver.base import AnalysisResult, Progress
from cos_interp.analyses.driver.command import command_line
from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.registry import entries as known
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.settings import AnalysisConfig, Loading
from cos_interp.analyses.driver.store import RunStore
from cos_interp.interp.model import HookedVideoPipeline

NAME = ENTRY.name
PILOT = 2  # items of the first run, whose time tells how many fit
LARGEST = 125
USUAL_TWINS, MORE_TWINS = DossierConfig().twins, 4
SHORT = 60  # seconds of a run, below which it has more twins
UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds(text: str) -> float:
    """``90s``, ``20m``, ``1.5h`` in seconds, ``none`` as infinity; ValueError for anything else."""
    if text.strip() == "none":
        return math.inf
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if not found or float(found[1]) == 0:
        raise ValueError(f"--budget {text!r}: give a time like 90s, 20m or 1h, or none")
    return float(found[1]) * UNITS[found[2]]


def size_field(entry: Entry) -> str:
    """The setting that scales an experiment."""
    return "items" if "items" in entry.config.model_fields else "pairs"


def configured(entry: Entry, config: DossierConfig, items: int | None = None) -> AnalysisConfig:
    """An experiment's own defaults, with the dossier's model, how it is loaded and called, limits, inputs and seed, at a size;
    None: its own. Of own prompts all are taken."""
    scored = ("prompts", "scorer", "scorer_cmd", "scorer_seconds") if config.prompts is not None else ()
    handed = {*Loading.model_fields, "guidance_scale", "seed", "twins", "confirm", *scored}
    shared = handed & set(entry.config.model_fields)
    if "prompts" not in shared:  # it goes over other things, which have verifiers of their own
        shared -= set(scored)
    if config.num_inference_steps != DossierConfig().num_inference_steps:
        shared.add("num_inference_steps")
    size = {} if items is None or config.prompts is not None else {size_field(entry): items}
    return entry.config(**{name: getattr(config, name) for name in shared}, **size)


def settled_size(entry: Entry, config: DossierConfig, allowed: float, other: alike.Like | None) -> AnalysisConfig | None:
    """The settings of an experiment whose size no time decides: another dossier's, or its own where there is no limit."""
    given = other and other.sized(entry)
    return given or (configured(entry, config) if math.isinf(allowed) else None)


def size_of(entry: Entry, config: DossierConfig, asked: AnalysisConfig) -> int:
    """How many items an experiment has with some settings: as they say it, or of own prompts all that there are."""
    size = None if config.prompts is not None else getattr(asked, size_field(entry))
    return len(load(entry.name).pieces(asked)) if size is None else int(size)


def expected(config: DossierConfig) -> str:
    """What a dossier of own sizes takes, in words, for who waits for it; "" for one whose budget says it."""
    if not math.isinf(seconds(config.budget)):
        return ""
    entries, beside = chosen(config), f", each beside {config.twins} twins" if config.twins else ""
    more = [entry.seconds for entry in entries if not config.like and short(config, entry.seconds)]
    beside += f" ({MORE_TWINS} where a run takes under a minute)" if more else ""
    took = sum(entry.seconds for entry in entries) * (1 + config.twins) + sum(more) * (MORE_TWINS - config.twins)
    minutes = max(1, round(took / 60))
    count = f"{len(entries)} experiment{'s' * (len(entries) != 1)}"
    time = f"{minutes} minute{'s' * (minutes != 1)}"
    what = f"{count}{beside}: about {time} for the shipped organisms on two cores"
    return f"{what}; interrupt it and run the same command again: it continues"


def short(config: DossierConfig, run_seconds: float) -> bool:
    """Whether a run of so many seconds has more twins than the usual number: not where another number was asked for."""
    return config.twins == USUAL_TWINS and run_seconds < SHORT


def fitting_items(allowed: float, pilot_seconds: float) -> int:
    """How many items fit, when PILOT of them took ``pilot_seconds``; at least PILOT, at most the suite."""
    return int(min(LARGEST, max(PILOT, PILOT * allowed / max(pilot_seconds, 1e-3))))


def chosen(config: DossierConfig) -> list[Entry]:
    """The experiments of a dossier, of which those that must be told more are none; ValueError for an unknown name."""
    names = [name for name, entry in known().items() if not entry.given]
    unknown = [n for n in config.only or () if n not in names]
    if unknown:
        raise ValueError(f"--only {unknown[0]!r}: the experiments are {', '.join(names)}")
    return [known()[n] for n in (config.only or names) if config.prompts is None or "prompts" in known()[n].config.model_fields]


def run_and_report(
    config: DossierConfig, folder: Path, *, model: HookedVideoPipeline | None = None, fresh: bool = False,
    workers: int | None = None, progress: Progress = lambda done, total, what: None, accept_versions: bool = False,
) -> tuple[AnalysisResult, Report]:  # fmt: skip
    """Run, or continue, a dossier. Each experiment is a run folder of its own below ``folder``."""
    budget, entries = seconds(config.budget), chosen(config)
    names = [entry.name for entry in entries]
    given = model is not None
    config, model = experiment.loaded(config) if model is None else (experiment.settled(config, model), model)
    with experiment.threads(1 if workers != 1 else None) as count:
        asked = identity.of(NAME, config, model, count, given)
        with RunStore.open(folder, asked, fresh, ENTRY.facts, accept_versions, parts=names) as store:
            ways = {"model": model, "loaded": not given, "workers": workers, "accept_versions": accept_versions}
            failed = _each(entries, budget, config, store, ways, progress)
            units = {entry.name: store.finished(entry.name)[1] for entry in entries if entry.name not in failed} | failed
            result = AnalysisResult(NAME, config, pd.DataFrame(), store.facts() or {}, units)
            result = concluded(result)
            store.write_results(shown_rows(result))
            drawn = figures(folder, result.units_of(ExperimentFacts))
            report = build(result, drawn)
            store.write_page(files(report, drawn))
            if failed:
                raise RunError(f"{', '.join(failed)} failed and may succeed next time: run the same command again")
            store.complete()
    return result, report


def _each(
    entries: Sequence[Entry], left: float, config: DossierConfig, store: RunStore, ways: Mapping[str, Any], progress: Progress,
) -> dict[str, ExperimentFacts]:  # fmt: skip
    """Run what is missing within the time that is left, in these ways (see :class:`experiment.Ways`); the experiments that failed
    for a reason that may pass."""
    failed, other = {}, alike.like(config, ways["model"])
    for done, entry in enumerate(entries):
        progress(done, len(entries), entry.name)
        weights = [e.seconds for e in entries[done:]]
        began = time.monotonic()
        if not _held(store, entry.name):
            facts, passing = _one(entry, config, store, ways, left * weights[0] / sum(weights), other)
            if passing:
                failed[entry.name] = facts
            else:
                store.add_unit(entry.name, [], {}, facts)
        left -= time.monotonic() - began
    return failed


def _held(store: RunStore, name: str) -> bool:
    """Whether an experiment is done and its run still there, which a user may have removed to have it made again."""
    held = store.unit(name)
    if held is None:
        return False
    assert isinstance(held[1], ExperimentFacts)
    return bool(held[1].error) or RunStore(store.folder / name).facts() is not None


def _one(
    entry: Entry, config: DossierConfig, store: RunStore, ways: Mapping[str, Any], allowed: float, other: alike.Like | None
) -> tuple[ExperimentFacts, bool]:
    """One experiment within ``allowed`` seconds: a small run first, which grows when more fits; without a limit at its own size;
    or at the size that it has in another dossier, whose twins are taken over where they are the same. With it, whether it failed
    for a reason that may pass: a lost worker or a full disk, not a model that does not fit."""
    folder, made = store.folder / entry.name, load(entry.name)
    said: dict[str, Any] = {}
    passing, began = False, time.monotonic()
    try:
        if other:
            other.take_twins(entry, folder)
        sized, continued = settled_size(entry, config, allowed, other), _config_of(folder, entry)
        asked = continued or sized or configured(entry, config, PILOT)
        _, report = experiment.run_and_report(made, asked, folder, **ways)
        spent = takes = time.monotonic() - began
        fitting = PILOT if sized else fitting_items(allowed - spent, spent)
        first = asked
        if config.prompts is None and getattr(asked, size_field(entry)) == PILOT < fitting:
            asked, takes = configured(entry, config, fitting), spent * fitting / PILOT
        if not (continued or other) and short(config, takes / (1 + config.twins)):  # of a part its time says nothing
            asked = asked.model_copy(update={"twins": MORE_TWINS})
        if asked != first:
            _, report = experiment.run_and_report(made, asked, folder, **ways)
        said |= {"command": command_line(entry.name, asked), "items": size_of(entry, config, asked)}
        said |= said_of(report)
    except (ValueError, RuntimeError, OSError) as error:  # one experiment that cannot run does not end the dossier
        said, passing = {"error": str(error)}, not isinstance(error, ValueError)
    return ExperimentFacts(about=entry.about, seconds=round(time.monotonic() - began, 1), **said), passing


def _config_of(folder: Path, entry: Entry) -> AnalysisConfig | None:
    """The configuration of an interrupted experiment, so that it is continued at its own size."""
    held = RunStore(folder).facts()
    return None if held is None else entry.config(**held["config"])
