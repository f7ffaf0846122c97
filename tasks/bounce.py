"""Bounce: a ball rolls diagonally, one cell a pixel frame, and reflects off walls and the border.

The first frame and the prompt fix the whole path: with "backward" the ball rolls tail first. Serial depth, no ambiguity.
"""

from __future__ import annotations

import numpy as np

from cos_interp.tasks import grid
from cos_interp.tasks.base import PairKind, Task, disjoint, find, one_hot_mask
from cos_interp.tasks.grid import CLASS_ID, FLOOR, FRAMES, HEADINGS, WALL
from cos_interp.tasks.item import Item, Verdict
from cos_interp.tasks.labels import CELLS, SEEN, Label, by_cell, by_frame, last_pixel_frames, whole_clip

Cell = tuple[int, int]
BALLS = {CLASS_ID[f"ball {name}"]: heading for name, heading in HEADINGS.items()}
BALL_OF = {heading: ball for ball, heading in BALLS.items()}
MANNERS = ("forward", "backward")


def _blocked(first: np.ndarray, row: int, col: int) -> bool:
    inside = 0 <= row < grid.ROWS and 0 <= col < grid.COLS
    return not inside or bool(first[row, col] == WALL)


def reflect(first: np.ndarray, at: Cell, velocity: Cell) -> Cell:
    """Velocity after looking ahead: each blocked side flips its own axis; a blocked corner flips both."""
    (row, col), (down, right) = at, velocity
    if _blocked(first, row + down, col):
        down = -down
    if _blocked(first, row, col + right):
        right = -right
    if _blocked(first, row + down, col + right):
        down, right = -down, -right
    return down, right


def roll(first: np.ndarray, at: Cell, velocity: Cell, frames: int = FRAMES) -> tuple[list[Cell], list[Cell], int] | None:
    """Positions and velocities of all pixel frames and the number of reflections; None when the ball is stuck."""
    path, velocities, bounces = [at], [velocity], 0
    for _ in range(frames - 1):
        turned = reflect(first, at, velocity)
        bounces += turned != velocity
        velocity = turned
        at = (at[0] + velocity[0], at[1] + velocity[1])
        if _blocked(first, *at):
            return None
        path.append(at)
        velocities.append(velocity)
    return path, velocities, bounces


def draw(first: np.ndarray, path: list[Cell], velocities: list[Cell], sign: int) -> np.ndarray:
    """Classes of the video; the ball's nose points along ``sign * velocity``."""
    cells = np.repeat(np.where(np.isin(first, list(BALLS)), FLOOR, first)[None], len(path), 0)
    for frame, (at, velocity) in enumerate(zip(path, velocities, strict=True)):
        cells[frame][at] = BALL_OF[sign * velocity[0], sign * velocity[1]]
    return cells


def path_name(path: list[Cell]) -> str:
    return ">".join(f"{r}{c}" for r, c in path)


def ball_cells(item: Item) -> np.ndarray:
    """Number of the ball's cell by pixel frame."""
    return np.isin(item.cells, list(BALLS)).reshape(FRAMES, -1).argmax(1)


def route(item: Item, first: int = 0) -> np.ndarray:
    """The cells that the ball visits, from a pixel frame on, bool ``[ROWS, COLS]``."""
    return np.asarray(np.isin(item.cells[first:], list(BALLS)).any(0))


class Bounce(Task):
    """A ball moves straight on and is reflected by the walls."""

    name = "bounce"
    about = "a ball rolls diagonally, one cell a pixel frame, and reflects off walls and the border"
    difficulties = range(1, 9)
    frames = FRAMES
    difficulty_unit = "number of reflections"
    strata = tuple((difficulty, None) for difficulty in range(2, 9))
    objects = ("ball",)
    readable = (
        *SEEN,
        Label("on_path", "reasoning", "is the cell on the solution path", ("off", "on"),
              lambda item: by_cell(route(item, 1))),
        Label("ball_position", "reasoning", "cell of the ball at the token's time", CELLS,
              lambda item: by_frame(last_pixel_frames(ball_cells(item)))),
        Label("manner", "reasoning", "forward or backward (whole clip)", MANNERS,
              lambda item: whole_clip(MANNERS.index(item.metadata["manner"]))),
        Label("final_position", "consolidation", "cell where it ends (whole clip)", CELLS,
              lambda item: whole_clip(int(ball_cells(item)[-1]))),
    )  # fmt: skip
    errors = (
        "first frame changed", "lost", "more than one ball", "through wall", "frozen", "wrong path", "wrong heading",
        "scene changed",
    )  # fmt: skip

    def propose(self, rng: np.random.Generator) -> Item | None:
        first = np.full((grid.ROWS, grid.COLS), FLOOR)
        cells = rng.permutation(grid.ROWS * grid.COLS)
        walls = rng.integers(0, 8)
        first.reshape(-1)[cells[1 : 1 + walls]] = WALL
        first.reshape(-1)[cells[0]] = list(BALLS)[rng.integers(4)]
        return self.build(first, MANNERS[rng.integers(2)])

    def build(self, first: np.ndarray, manner: str) -> Item | None:
        """The item of a first frame and a manner of rolling, or None when the ball cannot roll on."""
        at, sign = find(first, list(BALLS))[0], 1 if manner == "forward" else -1
        heading = BALLS[int(first[at])]
        rolled = roll(first, at, (sign * heading[0], sign * heading[1]), self.frames)
        if rolled is None or rolled[2] not in self.difficulties:
            return None
        path, velocities, bounces = rolled
        answer = path_name(path)
        cells = draw(first, path, velocities, sign)
        if np.array_equal(cells, cells[::-1]):
            return None  # a video that equals its own reversal cannot tell time's direction
        return Item(self.name, 0, f"roll the ball {manner}", cells, bounces, answer, (answer,), {"manner": manner})

    def judge(self, item: Item, cells: np.ndarray) -> Verdict:
        seen = [find(frame, list(BALLS)) for frame in cells]
        answer = path_name([at[0] for at in seen if at])
        error = self._error(item, cells, seen)
        return Verdict("wrong", error, answer) if error else Verdict("solved", "", answer)

    def _error(self, item: Item, cells: np.ndarray, seen: list[list[Cell]]) -> str:
        if any(len(at) != 1 for at in seen):
            return "more than one ball" if any(len(at) > 1 for at in seen) else "lost"
        path = [at[0] for at in seen]
        if any(item.cells[0][at] == WALL for at in path):
            return "through wall"
        if len(set(path)) == 1:
            return "frozen"
        if path_name(path) != item.answer:
            return "wrong path"
        if not np.array_equal(np.isin(cells, list(BALLS)), np.isin(item.cells, list(BALLS))):
            return "wrong path"
        if any(cells[f][at] != item.cells[f][at] for f, at in enumerate(path)):
            return "wrong heading"
        return "" if np.array_equal(cells, item.cells) else "scene changed"

    def moving(self, item: Item) -> list[int]:
        return list(BALLS)

    def counterfactual(self, item: Item, kind: PairKind, rng: np.random.Generator) -> Item | None:
        first, manner = item.cells[0], item.metadata["manner"]
        if kind == "prompt":
            found = self.build(first, "backward" if manner == "forward" else "forward")
        else:
            turned = first.copy()
            at = find(first, list(BALLS))[0]
            turned[at] = rng.choice([ball for ball in BALLS if ball != first[at]])
            found = self.build(turned, manner)
        return found if found is not None and found.answer != item.answer else None

    def groups(self, item: Item, donor: Item) -> dict[str, np.ndarray]:
        own, theirs = route(item), route(donor)
        return disjoint(
            {
                "ball": one_hot_mask(find(item.cells[0], list(BALLS))),
                "walls": item.cells[0] == WALL,
                "shared_route": own & theirs,
                "target_route": own,
                "donor_route": theirs,
            }
        )


TASK = Bounce()
