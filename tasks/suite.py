"""``cos-500``: 500 fixed items, 125 of each of four tasks, stratified by difficulty and by unique / ambiguous answer.

All are from the test split, which is decided by the first frame, so no training clip shares a scene with them.
"""

from __future__ import annotations

from functools import cache

from cos_interp.tasks import Item, get_task

SIZE = 125  # items a task
NAME = "cos-500"
OF = ("maze", "occlusion", "bounce", "place")  # its tasks, whatever others there are
CONFIRMATION = 20_000_000  # first seed of the items that confirm; cos organism eval draws its own from 5,000,000 on
APART = 10_000  # seeds between those of two drawings, of which one takes some hundreds


@cache
def task_items(name: str) -> tuple[Item, ...]:
    """The 125 items of a task, all with different first frames or prompts."""
    return _drawn(name, 0, set())


@cache
def confirmation_items(name: str, seed: int = 0) -> tuple[Item, ...]:
    """125 other items of the same strata, also of the test split, none of them in cos-500: to confirm what was found there.

    Another ``seed`` draws others, for rules that were changed after numbers of the first were seen: 1 none of those of 0, further
    ones none of 0 and 1. Among themselves these may share some: the easiest occlusion items are about 170 in all.
    """
    before = [item for earlier in range(min(seed, 2)) for item in confirmation_items(name, earlier)]
    return _drawn(name, CONFIRMATION + seed * APART, {*_keys(name), *map(_key, before)})


def holds(item: Item) -> bool:
    """Whether an item, or one with its first frame and prompt, is in cos-500."""
    return item.task in OF and _key(item) in _keys(item.task)


@cache
def _keys(name: str) -> frozenset[bytes]:
    return frozenset(map(_key, task_items(name)))


def _drawn(name: str, seed: int, seen: set[bytes]) -> tuple[Item, ...]:
    """Items by the strata of a task, from a seed on, without those that were ``seen``."""
    task, found = get_task(name), list[Item]()
    while len(found) < SIZE:
        difficulty, unique = task.strata[len(found) % len(task.strata)]
        item = task.sample(seed, difficulty, unique, split="test")
        if (key := _key(item)) not in seen:
            seen.add(key)
            found.append(item)
        seed += 1
    return tuple(found)


def _key(item: Item) -> bytes:
    return item.cells[0].tobytes() + item.prompt.encode()


def load(name: str = NAME) -> tuple[Item, ...]:
    """The items of a suite; ValueError for an unknown one."""
    if name != NAME:
        raise ValueError(f"unknown suite {name!r}; there is {NAME}")
    return tuple(item for task in OF for item in task_items(task))
