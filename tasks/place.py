"""Place: bring the named object into a relation with the box; everything else stays.

"next to" admits up to four places: those items are ambiguous, the true place is drawn uniformly.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cos_interp.tasks import grid
from cos_interp.tasks.base import Item, PairKind, Task, Verdict, at_latents, class_labels, disjoint, find, one_hot_mask
from cos_interp.tasks.grid import BOX, CLASS_ID, FLOOR, FRAMES, OBJECTS

Cell = tuple[int, int]
OBJECT_IDS = [CLASS_ID[name] for name in OBJECTS]
RELATIONS = {"above": (-1, 0), "below": (1, 0), "left of": (0, -1), "right of": (0, 1)}


def places(first: np.ndarray, relation: str) -> list[Cell]:
    """Free cells that stand in the relation to the box."""
    row, col = find(first, BOX)[0]
    offsets = RELATIONS.values() if relation == "next to" else [RELATIONS[relation]]
    cells = [(row + down, col + right) for down, right in offsets]
    return [c for c in cells if c in grid.neighbours(row, col) and first[c] == FLOOR]


def sideways_first(start: Cell, end: Cell) -> list[Cell]:
    """The path of the true video: along the row, then along the column."""
    (r0, c0), (r1, c1) = start, end
    across, down = (1 if c1 >= c0 else -1), (1 if r1 >= r0 else -1)
    return [(r0, c) for c in range(c0, c1, across)] + [(r, c1) for r in range(r0, r1, down)] + [end]


def draw(first: np.ndarray, path: list[Cell]) -> np.ndarray:
    """Classes of the video: the object at ``path[0]`` moves one cell a pixel frame, over whatever lies there."""
    cells = np.repeat(first[None], FRAMES, 0)
    moving = first[path[0]]
    for frame in range(1, FRAMES):
        cells[frame][path[0]] = FLOOR
        cells[frame][path[min(frame, len(path) - 1)]] = moving
    return cells


class Place(Task):
    """The named object is moved to a cell in the named relation to the box."""

    name = "place"
    difficulties = range(1, 5)
    difficulty_unit = "number of objects besides the box"
    strata = tuple((difficulty, unique) for difficulty in (1, 2, 3, 4) for unique in (True, False))
    objects = ("object", "donor_object", "box")
    errors = (
        "first frame changed", "lost", "duplicated", "wrong object", "wrong side", "not moved", "jumped", "late",
        "scene changed",
    )  # fmt: skip

    def propose(self, rng: np.random.Generator) -> Item | None:
        count = int(rng.integers(1, 5))
        names = [OBJECTS[i] for i in rng.permutation(len(OBJECTS))[:count]]
        cells = rng.permutation(grid.ROWS * grid.COLS)[: count + 1]
        first = np.full(grid.ROWS * grid.COLS, FLOOR)
        first[cells] = [BOX, *(CLASS_ID[n] for n in names)]
        relation = str(rng.choice([*RELATIONS, "next to"], p=[0.15] * 4 + [0.4]))
        return self.build(first.reshape(grid.ROWS, grid.COLS), names[0], relation, rng)

    def build(self, first: np.ndarray, name: str, relation: str, rng: np.random.Generator) -> Item | None:
        """The item of a first frame, a named object and a relation; None when no place is free or it is there already."""
        start = find(first, CLASS_ID[name])[0]
        box = find(first, BOX)[0]
        there = box in grid.neighbours(*start)
        ends = places(first, relation)
        if not ends or (there and relation == "next to"):
            return None
        if there and (start[0] - box[0], start[1] - box[1]) == RELATIONS.get(relation):
            return None
        end = ends[rng.integers(len(ends))]
        objects = int(np.isin(first, OBJECT_IDS).sum())
        cells = draw(first, sideways_first(start, end))
        answers = tuple(f"{name}@{r}{c}" for r, c in ends)
        metadata = {"object": name, "relation": relation}
        prompt = f"move the {name} {relation} the box"
        return Item(self.name, 0, prompt, cells, objects, f"{name}@{end[0]}{end[1]}", answers, metadata)

    def judge(self, item: Item, cells: np.ndarray) -> Verdict:
        first, last = cells[0], cells[-1]
        moved = [i for i in OBJECT_IDS if find(first, i) != find(last, i)]
        answer = " ".join(f"{grid.CLASSES[i]}@{r}{c}" for i in moved for r, c in find(last, i))
        error = self._error(item, cells, moved)
        return Verdict("wrong", error, answer) if error else Verdict("solved", "", answer)

    def _error(self, item: Item, cells: np.ndarray, moved: list[int]) -> str:
        named = CLASS_ID[item.metadata["object"]]
        if any(i != named for i in moved):
            return "wrong object"
        seen = [find(frame, named) for frame in cells]
        if any(len(at) != 1 for at in seen):
            return "duplicated" if any(len(at) > 1 for at in seen) else "lost"
        path = [at[0] for at in seen]
        if not moved:
            return "not moved"
        if f"{item.metadata['object']}@{path[-1][0]}{path[-1][1]}" not in item.answers:
            return "wrong side"
        steps = [abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in zip(path, path[1:], strict=False)]
        if max(steps) > 1:
            return "jumped"
        shortest = abs(path[0][0] - path[-1][0]) + abs(path[0][1] - path[-1][1])
        if steps != [1] * shortest + [0] * (len(steps) - shortest):
            return "late"
        return "" if np.array_equal(cells, draw(cells[0], path[: shortest + 1])) else "scene changed"

    def moving(self, item: Item) -> list[int]:
        return [CLASS_ID[item.metadata["object"]]]

    def right_videos(self, item: Item) -> list[np.ndarray]:
        return [self.with_answer(item, answer).cells for answer in item.answers]

    def counterfactual(self, item: Item, kind: PairKind, rng: np.random.Generator) -> Item | None:
        first, name, relation = item.cells[0], item.metadata["object"], item.metadata["relation"]
        if kind == "prompt":
            present = [n for n in OBJECTS if (first == CLASS_ID[n]).any()]
            choices = [(n, r) for n in present for r in RELATIONS if (n, r) != (name, relation)]
            built = [self.build(first, *choices[i], rng) for i in rng.permutation(len(choices))]
        else:
            box = find(first, BOX)[0]
            built = []
            for at in rng.permutation(np.argwhere(first == FLOOR)):
                moved = first.copy()
                moved[box], moved[tuple(at)] = FLOOR, BOX
                built.append(self.build(moved, name, relation, rng))
        other = (b for b in built if b is not None and not set(b.answers) & set(item.answers))
        return next(other, None)

    def labels(self, item: Item) -> dict[str, np.ndarray]:
        shape = (grid.LATENT_FRAMES, grid.ROWS, grid.COLS)
        named = CLASS_ID[item.metadata["object"]]
        track = item.cells == named
        end = int(np.argmax(track[-1].reshape(-1)))
        position = np.argmax(at_latents(track).reshape(grid.LATENT_FRAMES, -1), -1)
        return {
            "cell_class": class_labels(item.cells),
            "on_path": np.broadcast_to(track.any(0), shape).astype(np.int64),
            "object": np.full(shape, named),
            "object_position": np.broadcast_to(position[:, None, None], shape).copy(),
            "final_position": np.full(shape, end),
        }

    def groups(self, item: Item, donor: Item) -> dict[str, np.ndarray]:
        own, theirs = (CLASS_ID[i.metadata["object"]] for i in (item, donor))
        first = item.cells[0]
        return disjoint(
            {
                "target_place": one_hot_mask(find(item.cells[-1], own)),
                "donor_place": one_hot_mask(find(donor.cells[-1], theirs)),
                "object": one_hot_mask(find(first, own)),
                "donor_object": one_hot_mask(find(donor.cells[0], theirs)),
                "box": one_hot_mask(find(first, BOX)),
                "target_route": (item.cells == own).any(0),
                "donor_route": (donor.cells == theirs).any(0),
            }
        )

    def with_answer(self, item: Item, answer: str) -> Item:
        """The same problem with another of its right answers as the true video."""
        start, end = find(item.cells[0], CLASS_ID[item.metadata["object"]])[0], answer[-2:]
        path = sideways_first(start, (int(end[0]), int(end[1])))
        return replace(item, cells=draw(item.cells[0], path), answer=answer)


TASK = Place()
