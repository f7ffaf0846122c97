"""Which pieces of a run's work each of several processes does: by what the pieces are, not by who asks, when or in what order."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """Share ``number`` of ``count``, counted from 1. ValueError for one that there is not."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"--shard {self}: of {self.count} shards give one from 1/{self.count} to {self.count}/{self.count}")

    @classmethod
    def of(cls, text: str) -> Shard:
        """``2/8``. ValueError for anything else.

        >>> Shard.of("2/8")
        Shard(number=2, count=8)
        """
        found = re.fullmatch(r"\s*([0-9]{1,6})\s*/\s*([0-9]{1,6})\s*", text)
        if found is None or int(found[2]) == 0:
            raise ValueError(f"--shard {text!r}: give the share and how many there are, from 1/8 to 8/8")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def tag(self) -> str:
        """For a file name."""
        return f"{self.number}-of-{self.count}"


def dealt(names: Iterable[str], count: int) -> dict[str, Shard]:
    """The shard of each of some names, dealt out in the order of their digests: every name has one, whatever the order of the
    list, and no shard has more than one name more than another.

    >>> {name: str(shard) for name, shard in sorted(dealt(["maze-000", "maze-001", "place-000"], 2).items())}
    {'maze-000': '1/2', 'maze-001': '2/2', 'place-000': '1/2'}
    """
    order = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).digest())
    return {name: Shard(place % count + 1, count) for place, name in enumerate(order)}
