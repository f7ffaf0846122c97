"""How far the shards of a run have come, and who is at them: read from its folder, by whoever can see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cos_interp.analyses.driver import lock, manifest
from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.finishing import Work, why_not
from cos_interp.analyses.driver.loaded import facts_of
from cos_interp.analyses.driver.shard import Shard

State = Literal["done", "running", "stopped", "nobody is at it"]


@dataclass(frozen=True)
class Part:
    """One shard, its twins' units counted too. ``stopped``: its writer gives no sign of life. ``by``: the writer, in words."""

    shard: str
    done: int
    total: int
    state: State
    by: str

    def line(self) -> str:
        """For a terminal."""
        return f"{self.done} of {self.total}, {self.state}{f' ({self.by})' if self.by else ''}"


@dataclass(frozen=True)
class Standing:
    """Of a run. ``error``: what the last one met that failed; "" for none."""

    run: str
    status: str
    error: str
    parts: tuple[Part, ...]

    @property
    def whole(self) -> bool:
        """Whether all units are there."""
        return all(part.done == part.total for part in self.parts)

    def data(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self) | {"whole": self.whole}

    def lines(self) -> list[str]:
        """For a terminal."""
        told = [f"shard {part.shard}: {part.line()}" if len(self.parts) > 1 else part.line() for part in self.parts]
        failed = [f"failed: {self.error}"] if self.error else []
        end = {True: f"all units are there: cos runs finish {self.run}", False: f"{self.run} is {self.status}"}
        return [*told, *failed, end[self.whole and self.status != "complete"]]


class Watched:
    """The shards of a run; what they are to make is found out once, :meth:`look` counts what is there."""

    def __init__(self, folder: Path, known: Mapping[str, Entry]):
        self.folder, self.work = folder, Work.of(folder, known)
        living = lock.shards(folder)
        self.holders = self.work.holders(living[-1].count if living else None)

    def look(self) -> Standing:
        """How far they are now. RunError where the run is gone."""
        facts = facts_of(self.folder)
        twins = [part for part in self.work.parts if why_not(facts, part) is None]
        there = [{path.stem for path in (folder / manifest.UNITS).glob("*.safetensors")} for folder in (self.folder, *twins)]
        count = next(iter(self.holders.values())).count
        parts = tuple(self._part(Shard(number, count), there) for number in range(1, count + 1))
        return Standing(str(self.folder), str(facts["status"]), str(facts.get("error") or ""), parts)

    def _part(self, shard: Shard, there: list[set[str]]) -> Part:
        own = {unit for unit, held in self.holders.items() if held == shard}
        done, total = sum(len(own & units) for units in there), len(own) * len(there)
        who = shard if shard.count > 1 else None
        by = lock.owner(self.folder, who)
        alive = by is not None and lock.lives(self.folder, who)
        state: State = "done" if done == total else "running" if alive else "stopped" if by else "nobody is at it"
        return Part(str(shard), done, total, state, lock.described(by) if by else "")
