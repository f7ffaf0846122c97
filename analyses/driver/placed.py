"""Where the recordings of a pair are kept: the first place that holds them, in the order of how soon they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cos_interp.analyses.driver.outlook import Kept

NEAR, FAR = ("device", "host"), ("disk",)


@dataclass(frozen=True)
class Placed:
    """``place``: device (on the CPU the host is it), host or disk. ``sizes``: bytes of each recording; ``spare``: what the place
    has left. ``lean``: whether they are there one step at a time; ``nowhere``: whether no place holds them."""

    place: str
    sizes: tuple[int, ...]
    spare: int
    lean: bool = False
    nowhere: bool = False

    def most(self, number: int) -> int:
        """Bytes that one of them may have, so that all together stay in the place."""
        return self.sizes[min(number, len(self.sizes) - 1)] + max(0, self.spare) // len(self.sizes)


def placed(kept: Kept, room: Mapping[str, int], usual: int | None = None) -> Placed:
    """Recordings in the ``room`` that there is, bytes by place. ``usual``: what one may have where it is computed if nobody said.

    All steps near by, else one at a time, which takes a generation more for each recording; else on disk. Where nothing holds
    them they are in host memory, too large.

    >>> room = {"device": 5, "host": 30, "disk": 900}
    >>> [placed(Kept((size, size), (size // 9, size // 9)), room).place for size in (2, 12, 100, 300)]
    ['device', 'host', 'host', 'disk']
    """
    first = next(place for place in (*NEAR, *FAR) if place in room)
    ways = [(place, sizes, lean) for sizes, lean in ((kept.whole, False), (kept.lean, True)) for place in NEAR]
    ways += [(place, sizes, lean) for place in FAR for sizes, lean in ((kept.whole, False), (kept.lean, True))]
    for place, sizes, lean in ways:
        much = place == first and not lean and usual is not None and max(sizes) > usual
        if place in room and sum(sizes) <= room[place] and not much:
            spare = room[place] - sum(sizes)
            return Placed(place, sizes, spare if usual is None else min(spare, sum(max(0, usual - size) for size in sizes)), lean)
    return Placed("host", kept.lean, 0, True, nowhere=True)
