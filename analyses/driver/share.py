"""A share of a run: what one of several processes computes of it, in one folder that all write or in one of its own."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cos_interp.analyses.driver import lock
from cos_interp.analyses.driver.experiment import Begun, Experiment, Pieces, Ways, begin, beside, name_damaged
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.analyses.driver.shard import Shard, dealt

POLL = 1.0  # seconds between looks at what other shards have finished


@dataclass(frozen=True)
class Shared:
    """What is there when a shard has ended, twins left out. ``own``: units of the shard, all of them; ``there``: units in the
    folder, of how many ``total``."""

    shard: Shard
    own: int
    there: int
    total: int


def holders(waves: Collection[Pieces], count: int) -> dict[str, Shard]:
    """The shard of each unit. Each group of pieces, which wait for no other of it, is dealt out by itself."""
    found: dict[str, Shard] = {}
    for wave in waves:
        shard = dealt((units[0] for _, units in wave), count)
        found |= {unit: shard[units[0]] for _, units in wave for unit in units}
    return found


def share(experiment: Experiment, config: AnalysisConfig, folder: Path, *, shard: Shard, **ways: Any) -> Shared:
    """Compute the units of a shard, and what they need that nobody is at; results and page are :func:`finishing.finish`'s.

    ``ways`` are the fields of :class:`Ways`. Raises RunError for a folder that does not fit, Taken where another process writes
    the same shard, or the whole run.
    """
    with begin(experiment, config, folder, Ways(shard=shard, **ways)) as begun:
        part = _Part(begun, shard)
        part.compute()
        begun.store.before_unit()
        beside(begun, share)
        names = begun.units()
        there = sum(begun.store.unit_path(name).is_file() for name in names)
        return Shared(shard, len(part.own), there, len(names))


class _Part:
    """The pieces of one shard, and of the others what they need. ``own``: the names of its units."""

    def __init__(self, begun: Begun, shard: Shard):
        self.begun, self.shard, self.done = begun, shard, 0
        self.holder: Mapping[str, Shard] = holders(begun.waves, shard.count)
        self.own = [unit for unit in begun.units() if self.holder[unit] == shard]
        name_damaged(begun.store, self.own)
        self.needed = self._needed()
        name_damaged(begun.store, sorted(self.needed))

    def compute(self) -> None:
        """Groups of pieces in their order: own ones, then of the others what is needed later."""
        self._tell(self.begun.experiment.name)
        for wave in self.begun.waves:
            self._do([made for made in wave if self.holder[made[1][0]] == self.shard])
            self._await([made for made in wave if self.needed.intersection(made[1])])

    def _do(self, pieces: Pieces) -> None:
        for unit in self.begun.compute(pieces):
            self.done += 1
            self._tell(unit)

    def _tell(self, what: str) -> None:
        self.begun.ways.progress(self.done, max(self.done, len(self.own)), f"shard {self.shard}: {what}")

    def _needed(self) -> set[str]:
        """The units of other shards that this one's missing pieces need, and those that these need."""
        experiment, config = self.begun.experiment, self.begun.config
        needs = {unit: experiment.needs(config, piece) for wave in self.begun.waves for piece, units in wave for unit in units}
        found: set[str] = set()
        ahead = [unit for unit in self.own if not self._is_there(unit)]
        while ahead:
            new = set(needs[ahead.pop()]) - found
            found |= new
            ahead += new
        return found.difference(self.own)

    def _await(self, others: Pieces) -> None:
        """Wait for pieces of shards that are alive, and do those of shards that are not."""
        while lacking := [made for made in others if not all(map(self._is_there, made[1]))]:
            left = [made for made in lacking if not lock.lives(self.begun.store.folder, self.holder[made[1][0]])]
            if left:
                at = len(left) * (self.shard.number - 1) // self.shard.count  # every shard begins at another place
                self._do((left[at:] + left[:at])[: self.begun.workers])
            else:
                self._tell(f"waits for shard {', '.join(sorted({str(self.holder[made[1][0]]) for made in lacking}))}")
                time.sleep(POLL)

    def _is_there(self, unit: str) -> bool:
        return self.begun.store.unit_path(unit).is_file()
