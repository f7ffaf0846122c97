"""Items that are longer than any that was trained on, each with one of the same scene that is not.

A maze's route has more cells than a trained video has moves; the short one's agent stands further along the same route. A ball
rolls on after the last trained frame; the short one is the beginning of its way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cos_interp.tasks.bounce import Bounce
from cos_interp.tasks.grid import AGENT, FLOOR, FRAMES
from cos_interp.tasks.item import Item
from cos_interp.tasks.maze import Maze, parse_route

NAMES = ("maze", "bounce")  # of which there are longer items
SHORT = 4  # lengths up to the longest trained one that a short route may have


@dataclass(frozen=True)
class LongPair:
    """Of one scene: an item ``beyond`` the trained lengths, and one ``within`` them, in videos of the same number of frames; and
    the latter, ``trained``, in a video as long as trained ones. ``length``: moves of the long one, ``short`` of the others."""

    beyond: Item
    within: Item
    trained: Item
    length: int
    short: int


class LongMaze(Maze):
    """A maze in a video of more frames."""

    def __init__(self, frames: int, difficulties: range):
        self.frames, self.difficulties = frames, difficulties


class LongBounce(Bounce):
    """A bounce in a video of more frames."""

    def __init__(self, frames: int):
        self.frames, self.difficulties = frames, range(1, frames)


def long_pair(task: str, frames: int, seed: int) -> LongPair | None:
    """The pair of a seed, of scenes that no training clip has; None where the seed has none. ``frames``: of the long video."""
    made = {"maze": _maze, "bounce": _bounce}[task](frames, seed)
    return made if made is not None and all(item.split == "test" for item in (made.beyond, made.trained)) else None


def _maze(frames: int, seed: int) -> LongPair | None:
    rng = np.random.default_rng([seed, *b"long maze"])
    longest = Maze.difficulties.stop - 1
    beyond = LongMaze(frames, range(longest + 1, frames)).propose(rng)
    if beyond is None:
        return None
    route, colour = parse_route(beyond.answer), beyond.metadata["colour"]
    for left in rng.permutation(np.arange(longest - SHORT + 1, longest + 1)).tolist():
        first = beyond.cells[0].copy()
        first[route[0]], first[route[-1 - left]] = FLOOR, AGENT
        within = LongMaze(frames, Maze.difficulties).build(first, colour, rng)
        if within is not None and within.split == "test":
            trained = replace(within, cells=within.cells[:FRAMES], seed=seed)
            return LongPair(replace(beyond, seed=seed), replace(within, seed=seed), trained, len(route) - 1, left)
    return None


def _bounce(frames: int, seed: int) -> LongPair | None:
    rng = np.random.default_rng([seed, *b"long bounce"])
    beyond = LongBounce(frames).propose(rng)
    if beyond is None:
        return None
    trained = Bounce().build(beyond.cells[0], beyond.metadata["manner"])
    if trained is None:
        return None
    seeded = replace(beyond, seed=seed)
    return LongPair(seeded, seeded, replace(trained, seed=seed), frames - 1, FRAMES - 1)
