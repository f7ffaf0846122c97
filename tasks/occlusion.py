"""Occlusion: an object is hidden for part of the clip and must come back right and on time (working memory).

Two scenes: a board slides over still objects and out of the picture, or a named object moves behind a fixed wall.
"""

from __future__ import annotations

import numpy as np

from cos_interp.tasks import grid
from cos_interp.tasks.base import Item, PairKind, Task, Verdict, at_latents, class_labels, disjoint, find, one_hot_mask
from cos_interp.tasks.grid import BOARD, CLASS_ID, COLS, FLOOR, FRAMES, OBJECTS, WALL

OBJECT_IDS = [CLASS_ID[name] for name in OBJECTS]
SIDE = COLS  # the grid is square, so that scenes can be turned
TURNS = {"right": 0, "up": 1, "left": 2, "down": 3}  # quarter turns, counter-clockwise, of a scene that moves right


def slide(still: np.ndarray, start: int, width: int) -> np.ndarray:
    """A board of ``width`` columns that starts at column ``start`` and moves right, one column a pixel frame."""
    cells = np.repeat(still[None], FRAMES, 0)
    for frame in range(FRAMES):
        cells[frame][:, start + frame : start + frame + width] = BOARD
    return cells


def pass_behind(still: np.ndarray, row: int) -> np.ndarray:
    """The object in column 0 of ``row`` moves right to the far side; it is not seen where a wall stands."""
    cells = np.repeat(still[None], FRAMES, 0)
    moving = still[row, 0]
    cells[1:, row, 0] = FLOOR
    for frame in range(1, FRAMES):
        col = min(frame, SIDE - 1)
        if still[row, col] != WALL:
            cells[frame, row, col] = moving
    return cells


def read_answer(cells: np.ndarray) -> str:
    """Where the board went and what stands where at the end, of any readable video."""
    before, after = (np.argwhere(frame == BOARD) for frame in cells[:2])
    board = "none"
    if len(before):
        gone = (cells[1] != BOARD) & (cells[0] == BOARD)
        shift = before.mean(0) - np.argwhere(gone).mean(0) if gone.any() else np.zeros(2)
        axis = int(np.argmax(np.abs(shift)))
        board = "still" if not shift.any() else (("up", "down"), ("left", "right"))[axis][int(shift[axis] > 0)]
    objects = " ".join(f"{grid.CLASSES[cells[-1][at]]}@{at[0]}{at[1]}" for at in find(cells[-1], OBJECT_IDS))
    return f"board {board}; {objects}" if len(before) or len(after) else objects


class Occlusion(Task):
    """Something passes behind a wall, or a board passes over things: what is hidden stays what and where it was."""

    name = "occlusion"
    difficulties = range(1, 4)
    difficulty_unit = "number of objects"
    strata = tuple((difficulty, None) for difficulty in (1, 2, 3))
    objects = ("object", "donor_object")
    errors = ("first frame changed", "frozen", "lost", "wrong identity", "wrong place", "late", "scene changed")

    def propose(self, rng: np.random.Generator) -> Item | None:
        names = [OBJECTS[i] for i in rng.permutation(len(OBJECTS))[: rng.integers(1, 4)]]
        width, turn = int(rng.integers(2, 4)), str(rng.choice(list(TURNS)))
        if rng.random() < 0.5:
            start = int(rng.integers(0, SIDE - width))
            still = np.full((SIDE, SIDE), FLOOR)
            still[:, start : start + width] = BOARD
            place = [(int(r), int(c)) for r, c in rng.permutation(np.argwhere(still == FLOOR))[: len(names)]]
        else:
            still = np.full((SIDE, SIDE), FLOOR)
            first_wall = int(rng.integers(1, SIDE - width))
            still[:, first_wall : first_wall + width] = WALL
            sides = rng.integers(0, 2, len(names)) * (SIDE - 1)
            place = [(int(r), int(c)) for r, c in zip(rng.permutation(SIDE)[: len(names)], sides, strict=True)]
        for name, at in zip(names, place, strict=True):
            still[at] = CLASS_ID[name]
        first = np.ascontiguousarray(np.rot90(still, TURNS[turn]))
        if (still == BOARD).any():
            return self.build(first, turn)
        return self.build(first, names[int(rng.integers(len(names)))])

    def build(self, first: np.ndarray, what: str) -> Item | None:
        """The item in which the board slides towards ``what``, or in which the object ``what`` moves."""
        return self._board(first, what) if what in TURNS else self._wall(first, what)

    def _board(self, first: np.ndarray, turn: str) -> Item | None:
        scene = np.rot90(first, -TURNS[turn])
        covered = np.flatnonzero((scene == BOARD).all(0))
        if not len(covered):
            return None
        still = np.where(scene == BOARD, FLOOR, scene)
        swept = [name for name in OBJECTS if (still[:, covered[-1] + 1 :] == CLASS_ID[name]).any()]
        if not swept:
            return None
        cells = np.rot90(slide(still, int(covered[0]), len(covered)), TURNS[turn], axes=(1, 2))
        return self._item(cells, f"slide the board {turn}", swept, turn)

    def _wall(self, first: np.ndarray, name: str) -> Item | None:
        for quarter in TURNS.values():
            scene = np.rot90(first, -quarter)
            at = [r for r, c in find(scene, CLASS_ID[name]) if c == 0]
            if at and scene[at[0], SIDE - 1] == FLOOR and (scene[at[0], 1 : SIDE - 1] == WALL).any():
                cells = np.rot90(pass_behind(scene, at[0]), quarter, axes=(1, 2))
                return self._item(cells, f"move the {name} behind the wall", [name], name)
        return None

    def _item(self, cells: np.ndarray, prompt: str, hidden: list[str], what: str) -> Item:
        answer = read_answer(cells)
        objects = int(np.isin(cells[0], OBJECT_IDS).sum())
        metadata = {"hidden": tuple(hidden), "what": what, "kind": "board" if what in TURNS else "wall"}
        return Item(self.name, 0, prompt, np.ascontiguousarray(cells), objects, answer, (answer,), metadata)

    def judge(self, item: Item, cells: np.ndarray) -> Verdict:
        error = self._error(item, cells)
        return Verdict("wrong" if error else "solved", error, read_answer(cells))

    def _error(self, item: Item, cells: np.ndarray) -> str:
        if np.array_equal(cells, item.cells):
            return ""
        if (cells == cells[0]).all():
            return "frozen"
        last, true = cells[-1], item.cells[-1]
        for name in item.metadata["hidden"]:
            place, expected = find(last, CLASS_ID[name]), find(true, CLASS_ID[name])
            if place != expected:
                if place:
                    return "wrong place"
                return "wrong identity" if last[expected[0]] in OBJECT_IDS else "lost"
        return "late" if np.array_equal(last, true) else "scene changed"

    def moving(self, item: Item) -> list[int]:
        return [CLASS_ID[item.metadata["hidden"][0]]]

    def counterfactual(self, item: Item, kind: PairKind, rng: np.random.Generator) -> Item | None:
        first, what = item.cells[0], item.metadata["what"]
        if kind == "prompt":
            present = [name for name in OBJECTS if (first == CLASS_ID[name]).any()]
            choices = [w for w in (TURNS if what in TURNS else present) if w != what]
            built = [b for w in rng.permutation(choices) if (b := self.build(first, str(w))) is not None]
            return built[0] if built else None
        if what not in TURNS:  # the prompt names the object: mirror the scene, so that it moves the other way
            mirrored = first[::-1, ::-1]
            return self.build(np.ascontiguousarray(mirrored), what)
        changed = first.copy()
        old = CLASS_ID[item.metadata["hidden"][0]]
        changed[first == old] = rng.choice([i for i in OBJECT_IDS if not (first == i).any()])
        return self.build(changed, what)

    def _hidden_now(self, item: Item) -> np.ndarray:
        """Class of the object that is out of sight, by pixel frame; -1 while all are seen."""
        out = np.full(FRAMES, -1)
        for name in item.metadata["hidden"]:
            unseen = ~(item.cells == CLASS_ID[name]).any((1, 2))
            out[unseen] = CLASS_ID[name]
        return out

    def labels(self, item: Item) -> dict[str, np.ndarray]:
        shape = (grid.LATENT_FRAMES, grid.ROWS, grid.COLS)
        hidden = at_latents(self._hidden_now(item))
        identity = CLASS_ID[item.metadata["hidden"][0]]
        place = np.argmax((item.cells[-1] == identity).reshape(-1))
        return {
            "cell_class": class_labels(item.cells),
            "hidden_identity": np.broadcast_to(hidden[:, None, None], shape).copy(),
            "object": np.full(shape, identity),
            "return_place": np.full(shape, place),
        }

    def groups(self, item: Item, donor: Item) -> dict[str, np.ndarray]:
        first, last = item.cells[0], item.cells[-1]
        named = [CLASS_ID[n] for n in item.metadata["hidden"]]
        theirs = [CLASS_ID[n] for n in donor.metadata["hidden"]]
        return disjoint(
            {
                "object": one_hot_mask(find(first, named) + find(last, named)),
                "donor_object": one_hot_mask(find(donor.cells[0], theirs) + find(donor.cells[-1], theirs)),
                "other_objects": np.isin(first, OBJECT_IDS),
                "occluder": np.isin(first, [BOARD, WALL]),
            }
        )


TASK = Occlusion()
