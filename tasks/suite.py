"""``cos-500``: 500 fixed items, 125 a task, stratified by difficulty and by unique / ambiguous answer.

All are from the test split, which is decided by the first frame, so no training clip shares a scene with them.
"""

from __future__ import annotations

from functools import cache

from cos_interp.tasks import TASKS, Item

SIZE = 125  # items a task
NAME = "cos-500"
# strata a task: (difficulty, unique answer or None where the task has only unique ones)
STRATA: dict[str, list[tuple[int, bool | None]]] = {
    "maze": [(2, True), (3, True), (3, False), (4, True), (4, False), (5, True), (5, False), (6, True), (6, False), (7, False)]
    + [(7, True), (8, False)],
    "occlusion": [(d, None) for d in (1, 2, 3)],
    "bounce": [(d, None) for d in range(2, 9)],
    "place": [(d, unique) for d in (1, 2, 3, 4) for unique in (True, False)],
}  # fmt: skip


@cache
def task_items(name: str) -> tuple[Item, ...]:
    """The 125 items of a task, all with different first frames or prompts."""
    found: list[Item] = []
    seen: set[bytes] = set()
    seed = 0
    while len(found) < SIZE:
        difficulty, unique = STRATA[name][len(found) % len(STRATA[name])]
        item = TASKS[name].sample(seed, difficulty, unique, split="test")
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
    return tuple(item for task in TASKS for item in task_items(task))
