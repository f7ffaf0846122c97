"""The object that is cut away, and another one of the same picture: as many tokens, and as much a thing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cos_interp.analyses.kit.tracks import Track, track_of, tracks
from cos_interp.tasks import Item, grid
from cos_interp.tasks.base import find

GROUND = (grid.FLOOR, grid.WALL, grid.BOARD)


def pair_of(item: Item) -> tuple[Track, Track | None]:
    """The first object that an item is about, and another one that its prompt does not name: hidden too where there is such a
    one, else the one longest in sight. None without one. Tokens that the answer needs besides would be no fair comparison."""
    first, *others = tracks(item)
    found = [track for track in [*others, *_standing(item)] if track.name != first.name and track.name not in item.prompt]
    if others and found:
        return first, found[0]
    return first, max(found, key=lambda track: sum(track.seen), default=None)


def _standing(item: Item) -> list[Track]:
    """The things of the first frame that are there once."""
    picture = item.cells[0]
    once = [int(c) for c in np.unique(picture) if c not in GROUND and len(find(picture, int(c))) == 1]
    return [track_of(item, grid.CLASSES[c]) for c in once]


def later_frames(track: Track) -> list[int]:
    """Pixel frames after the first in which an object is to be seen."""
    return [f for f, seen in enumerate(track.seen) if seen and f > 0]


def frames_after_return(track: Track) -> list[int]:
    """Pixel frames in which an object is to be seen after it was out of sight."""
    return [f for f in later_frames(track) if not all(track.seen[:f])]


def share_right(shown: np.ndarray, track: Track, frames: Sequence[int]) -> float:
    """Share of some pixel frames in which an object's true cell shows it, of nearest sprites ``[pixel frame, row, col]``; NaN
    without frames. What became of one object, where the verifier asks for every cell of the video."""
    return float(np.mean([shown[f][track.cells[f]] in track.classes for f in frames])) if frames else float("nan")
