"""Longer items: legal, beyond what is trained, and each beside a shorter one of the same scene."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from cos_interp.tasks import get_task, grid
from cos_interp.tasks.bounce import BALLS
from cos_interp.tasks.longer import NAMES, LongPair, long_pair
from cos_interp.tasks.maze import parse_route, shortest_routes


def some(task: str, frames: int, number: int) -> list[LongPair]:
    made = (long_pair(task, frames, seed) for seed in count())
    return [pair for pair, _ in zip((one for one in made if one is not None), range(number), strict=False)]


@pytest.mark.parametrize("task", NAMES)
@pytest.mark.parametrize("frames", [13, 17])
def test_long_items_are_right_in_their_own_videos_and_beyond_the_trained_lengths(task, frames):
    for pair in some(task, frames, 6):
        assert pair.length > 8 >= pair.short and len(pair.beyond.cells) == len(pair.within.cells) == frames
        assert len(pair.trained.cells) == grid.FRAMES and pair.beyond.split == pair.trained.split == "test"
        for item in {id(one): one for one in (pair.beyond, pair.within, pair.trained)}.values():
            verdict = get_task(task).verify(item, grid.render(item.cells))
            assert verdict.solved and verdict.answer == item.answer
            frozen = np.repeat(item.cells[:1], len(item.cells), 0)
            assert not get_task(task).verify(item, grid.render(frozen)).solved
        with pytest.raises(ValueError, match="frames"):
            get_task(task).verify(pair.beyond, grid.render(pair.beyond.cells[:-1]))
        assert repr(long_pair(task, frames, pair.beyond.seed)) == repr(pair)


def test_a_short_maze_is_the_end_of_the_long_route():
    for pair in some("maze", 13, 6):
        long, short = (parse_route(item.answer) for item in (pair.beyond, pair.within))
        assert len(long) == pair.length + 1 and len(short) == pair.short + 1 and short[-1] == long[-1]
        first = pair.beyond.cells[0]
        assert len(shortest_routes(first, long[0], long[-1])[0]) <= len(long)
        moved = np.argwhere(first != pair.within.cells[0]).tolist()
        assert sorted(moved) == sorted([list(long[0]), list(short[0])])  # the agent alone stands elsewhere
        assert (pair.within.cells[:9] == pair.trained.cells).all() and (pair.within.cells[8:] == pair.within.cells[8]).all()


def test_a_short_bounce_is_the_beginning_of_the_long_way():
    for pair in some("bounce", 13, 6):
        assert pair.within is pair.beyond and (pair.beyond.cells[:9] == pair.trained.cells).all()
        at = [np.argwhere(np.isin(frame, list(BALLS))) for frame in pair.beyond.cells]
        assert all(len(one) == 1 for one in at) and all((np.abs(b - a) == 1).all() for a, b in zip(at, at[1:], strict=False))
