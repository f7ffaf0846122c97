"""The end of a run whose units several processes made: results, findings and page, of the units alone, without a model."""

from __future__ import annotations

import builtins
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cos_interp.analyses.driver import identity
from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.errors import RunError, Taken
from cos_interp.analyses.driver.experiment import Experiment, Pieces, Report, collect, concluded, ordered
from cos_interp.analyses.driver.loaded import asked_of, facts_of
from cos_interp.analyses.driver.registry import entries, load
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.analyses.driver.shard import Shard
from cos_interp.analyses.driver.share import holders
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.driver.workers import WorkerFailed, default_workers

NAMED = 8  # missing units that are named one by one
# errors of a run that may succeed when it is repeated
PASSING = {error.__name__ for error in (RunError, Taken, WorkerFailed)}


@dataclass(frozen=True)
class Work:
    """What a run folder is to hold. ``waves``: pieces with their units, in groups that wait for each other."""

    folder: Path
    facts: Mapping[str, Any]
    experiment: Experiment
    config: AnalysisConfig
    waves: list[Pieces]

    @classmethod
    def of(cls, folder: Path, known: Mapping[str, Entry]) -> Work:
        """RunError for a folder without a run, for a dossier, and for a run of the user's code, which is not executed here."""
        facts = facts_of(folder)
        entry, config = asked_of(folder, facts, known)
        if entry.name not in entries():
            raise RunError(f"{folder} is a dossier, which is not shared out: its experiments are, like {folder}/recovery")
        if identity.is_of_own_code(config):
            raise RunError(f"{folder} was made with code of its own, which only its command executes: run it without --shard")
        made = load(entry.name)
        return cls(folder, facts, made, config, ordered(made, config, made.pieces(config)))

    @property
    def parts(self) -> list[Path]:
        """The runs inside: of its twins."""
        return [self.folder / name for name in self.facts.get("parts", ())]

    def holders(self, count: int | None = None) -> dict[str, Shard]:
        """The shard of each unit, by the number of shards that was given last; one where none was."""
        return holders(self.waves, count or int(self.facts.get("shards", 1)))

    def missing(self) -> list[str]:
        """Units that are not there, or damaged, with their shard where there are several."""
        store = RunStore(self.folder, self.experiment.facts)
        held = self.holders()
        gone = [unit for unit in held if store.unit(unit) is None]
        return [f"{unit} (shard {held[unit]})" if held[unit].count > 1 else unit for unit in gone]


def finish(folder: Path, known: Mapping[str, Entry], accept_versions: bool = False) -> Report:
    """Write results, findings and page of a run whose units are all there, as the one process that computes all would.

    RunError, which writes nothing, for units that are missing here or in a twin, each named with the shard that makes it; for
    other versions and rules than the units were made with; and for what :meth:`Work.of` refuses.
    """
    works = list(_works(folder, known))
    if gaps := list(_gaps(works, folder)):
        raise RunError(
            f"{folder} is not whole, {len(gaps)} missing: {', '.join(gaps[:NAMED])}{', ...' if gaps[NAMED:] else ''}: run these "
            "shards, or the command without --shard, which does what is missing"
        )
    for work in works[:0:-1]:  # twins first: the run lists them
        _finish(work, accept_versions)
    return _finish(works[0], accept_versions)


def _works(folder: Path, known: Mapping[str, Entry]) -> Iterator[Work]:
    """Of a run, and of those of its twins that could run."""
    work = Work.of(folder, known)
    yield work
    for part in work.parts:
        there, why = RunStore(part).facts() is not None, why_not(work.facts, part)
        if not there and why is None:
            raise RunError(f"{part} is missing, a run of a model of random weights: run all shards, which make it")
        twin = Work.of(part, known) if there else None
        if twin is not None and not (why and twin.missing()):
            yield twin
        else:
            warnings.warn(f"{part.name}: {why}", stacklevel=3)


def why_not(facts: Mapping[str, Any], part: Path) -> str | None:
    """Why a twin's run inside one shows nothing and is not waited for: it could not be made, or has failed for good. None where
    it may be whole yet. ``facts``: of the run that it is inside."""
    held = RunStore(part).facts()
    if held is None:
        return facts.get("unmade", {}).get(part.name)
    return str(held.get("error")) if cannot(held) else None


def cannot(facts: Mapping[str, Any]) -> bool:
    """Whether a twin's run failed for a reason that would come again, as :func:`experiment.beside` has it: it shows nothing."""
    name = str(facts.get("error", "")).partition(":")[0]
    kind = getattr(builtins, name, ValueError)  # those of libraries are of one of the two
    return facts.get("status") == "failed" and name not in PASSING and issubclass(kind, (ValueError, RuntimeError))


def _gaps(works: list[Work], folder: Path) -> Iterator[str]:
    for work in works:
        inside = "" if work.folder == folder else f"{work.folder.name}/"
        yield from (f"{inside}{unit}" for unit in work.missing())


def _finish(work: Work, accept_versions: bool) -> Report:
    held = work.facts
    asked = {key: held[key] for key in identity.KEYS if key in held} | {
        "inputs": identity.inputs_of(work.config),
        "versions": identity.versions() | {"threads": held["versions"]["threads"]},
    }
    parts = [path.name for path in work.parts]
    opened = partial(RunStore.open, work.folder, asked, kinds=work.experiment.facts, accept_versions=accept_versions, parts=parts)
    with opened() as store:
        store.refuse_others(work.holders())
        result = work.experiment.finish(collect(work.experiment, work.config, store))
        store.write_results(result.rows)
        return concluded(work.experiment, result, store, default_workers())[1]
