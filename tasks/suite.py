"""``cos-500``: 500 fixed items, 125 a task, stratified by difficulty and by unique / ambiguous answer.

All are from the test split, which is decided by the first frame, so no training clip shares a scene with them.
"""

from __future__ import annotations

from functools import cache

from cos_interp.tasks import NAMES, Item, get_task

SIZE = 125  # items a task
NAME = "cos-500"


@cache
def task_items(name: str) -> tuple[Item, ...]:
    """The 125 items of a task, all with different first frames or prompts."""
    task = get_task(name)
    found: list[Item] = []
    seen: set[bytes] = set()
    seed = 0
    while len(found) < SIZE:
        difficulty, unique = task.strata[len(found) % len(task.strata)]
        item = task.sample(seed, difficulty, unique, split="test")
        key = item.cells[0].tobytes() + item.prompt.encode()
        if key not in seen:
            seen.add(key)
            found.append(item)
        seed += 1
    return tuple(found)


def load(name: str = NAME) -> tuple[Item, ...]:
    """The items of a suite; ValueError for an unknown one."""
    if name != NAME:
        raise ValueError(f"unknown suite {name!r}; there is {NAME}")
    return tuple(item for task in NAMES for item in task_items(task))
