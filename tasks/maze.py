"""Maze: walk to the named goal over free cells, by any shortest route, leaving a trail.

The route of the true video is drawn uniformly among all shortest ones. Several routes are what makes the answer form
along the denoising steps: the first clean estimate is their average, later steps commit to one.
"""

from __future__ import annotations

import numpy as np

from cos_interp.tasks import grid, reader
from cos_interp.tasks.base import PairKind, Task, disjoint, find, one_hot_mask
from cos_interp.tasks.grid import AGENT, CLASS_ID, COLOURS, FLOOR, FRAMES, TRAIL, WALL
from cos_interp.tasks.item import Item, Verdict
from cos_interp.tasks.labels import COLOURED, SEEN, Label, by_cell, whole_clip

Cell = tuple[int, int]
MAX_ROUTES = 24
GOALS = {colour: CLASS_ID[f"{colour} goal"] for colour in COLOURS}
DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


def distances(first: np.ndarray, start: Cell, blocked: Cell | None = None) -> dict[Cell, int]:
    """Steps from ``start`` to every cell that can be reached without walls (breadth-first)."""
    found, frontier, cells = {start: 0}, [start], first.tolist()
    while frontier:
        following = []
        for cell in frontier:
            for near in grid.neighbours(*cell):
                if near not in found and near != blocked and cells[near[0]][near[1]] != WALL:
                    found[near] = found[cell] + 1
                    following.append(near)
        frontier = following
    return found


def shortest_routes(first: np.ndarray, start: Cell, goal: Cell, blocked: Cell | None = None) -> list[tuple[Cell, ...]]:
    """All shortest routes ``(start, ..., goal)`` in a fixed order; empty when the goal is out of reach."""
    steps = distances(first, goal, blocked)
    if start not in steps:
        return []
    routes: list[tuple[Cell, ...]] = [(start,)]
    for left in range(steps[start] - 1, -1, -1):
        routes = [r + (n,) for r in routes for n in grid.neighbours(*r[-1]) if steps.get(n) == left]
    return routes


def draw(first: np.ndarray, route: tuple[Cell, ...], frames: int = FRAMES) -> np.ndarray:
    """Classes of the video of so many pixel frames in which the agent walks the route, one cell a frame, then rests."""
    cells = np.repeat(first[None], frames, 0)
    for frame in range(1, frames):
        at = min(frame, len(route) - 1)
        for cell in route[:at]:
            cells[frame][cell] = TRAIL
        cells[frame][route[at]] = AGENT
    return cells


def route_name(route: tuple[Cell, ...] | list[Cell]) -> str:
    return ">".join(f"{r}{c}" for r, c in route)


def parse_route(name: str) -> list[Cell]:
    return [(int(part[0]), int(part[1])) for part in name.split(">")]


def next_direction(item: Item) -> np.ndarray:
    """Where the route leads from each of its cells."""
    route, moves = parse_route(item.answer), list(DIRECTIONS.values())
    out = np.full((grid.ROWS, grid.COLS), -1)
    for here, following in zip(route, route[1:], strict=False):
        out[here] = moves.index((following[0] - here[0], following[1] - here[1]))
    return by_cell(out)


class Maze(Task):
    """An agent walks to the goal of the named colour, by a shortest route and around the walls."""

    name = "maze"
    about = "walk to the named goal over free cells, by any shortest route, leaving a trail"
    difficulties = range(2, 9)
    frames = FRAMES
    difficulty_unit = "length of the shortest route, cells"
    strata = (
        *((2, True), (3, True), (3, False), (4, True), (4, False), (5, True), (5, False), (6, True), (6, False), (7, False)),
        *((7, True), (8, False)),
    )
    objects = ("agent", "goals")
    readable = (
        *SEEN, *COLOURED,
        Label("on_path", "reasoning", "is the cell on the solution path", ("off", "on"),
              lambda item: by_cell(one_hot_mask(parse_route(item.answer)))),
        Label("next_direction", "reasoning", "where the route leads from the cell", tuple(DIRECTIONS), next_direction),
        Label("goal", "reasoning", "colour of the named goal (whole clip)", tuple(COLOURS),
              lambda item: whole_clip(list(COLOURS).index(item.metadata["colour"]))),
    )  # fmt: skip
    errors = (
        "first frame changed", "lost", "more than one agent", "jumped", "wall crossed", "wrong goal", "late",
        "not arrived", "trail broken", "scene changed",
    )  # fmt: skip

    def propose(self, rng: np.random.Generator) -> Item | None:
        first = np.where(rng.random((grid.ROWS, grid.COLS)) < rng.uniform(0.1, 0.4), WALL, FLOOR)
        start = (int(rng.integers(grid.ROWS)), int(rng.integers(grid.COLS)))
        first[start] = AGENT
        near = {c: d for c, d in distances(first, start).items() if d in self.difficulties}
        if not near:
            return None
        length = rng.choice(sorted(set(near.values())))
        goal = _pick(rng, [c for c, d in near.items() if d == length])
        free = [c for c in find(first, FLOOR) if c != goal]
        if not free:
            return None
        other = _pick(rng, free)
        colours = rng.permutation(list(COLOURS))[:2]
        first[goal], first[other] = GOALS[colours[0]], GOALS[colours[1]]
        return self.build(first, str(colours[0]), rng)

    def build(self, first: np.ndarray, colour: str, rng: np.random.Generator) -> Item | None:
        """The item of a first frame and a named goal, or None when no route of a legal length leads there."""
        start, goal = find(first, AGENT)[0], find(first, GOALS[colour])[0]
        other = next(c for c in find(first, list(GOALS.values())) if c != goal)
        routes = shortest_routes(first, start, goal, other)
        if not 1 <= len(routes) <= MAX_ROUTES or len(routes[0]) - 1 not in self.difficulties:
            return None
        route = routes[rng.integers(len(routes))]
        return Item(
            self.name, 0, f"go to the {colour} goal", draw(first, route, self.frames), len(route) - 1, route_name(route),
            tuple(map(route_name, routes)), {"colour": colour, "routes": len(routes)},
        )  # fmt: skip

    def judge(self, item: Item, cells: np.ndarray) -> Verdict:
        walk: list[Cell] = []
        for frame in cells:
            agents = find(frame, AGENT)
            if len(agents) != 1:
                return Verdict("wrong", "more than one agent" if agents else "lost", route_name(walk))
            walk += agents if not walk or agents[0] != walk[-1] else []
        answer = route_name(walk)
        error = self._walk_error(item, walk, cells)
        return Verdict("wrong", error, answer) if error else Verdict("solved", "", answer)

    def _walk_error(self, item: Item, walk: list[Cell], cells: np.ndarray) -> str:
        first = item.cells[0]
        goal = find(first, GOALS[item.metadata["colour"]])[0]
        if any(first[c] == WALL for c in walk):
            return "wall crossed"
        if any(b not in grid.neighbours(*a) for a, b in zip(walk, walk[1:], strict=False)):
            return "jumped"
        if walk[-1] != goal:
            return "wrong goal" if first[walk[-1]] in GOALS.values() else "not arrived"
        if route_name(walk) not in item.answers:
            return "late"
        expected = draw(first, tuple(walk), len(cells))
        if not np.array_equal(cells == AGENT, expected == AGENT):
            return "late"
        if not np.array_equal(cells == TRAIL, expected == TRAIL):
            return "trail broken"
        return "" if np.array_equal(cells, expected) else "scene changed"

    def readings(self, item: Item, frames: np.ndarray) -> dict[str, float]:
        """``route mass`` of every shortest route: mean share of trail over its inner cells in the last frame."""
        last = reader.tiles(reader.as_float(frames[-1:]))[0]
        trail = reader.share(last, FLOOR, TRAIL)
        out = {}
        for name in item.answers:
            inner = parse_route(name)[1:-1]
            if inner:
                out[f"route mass {name}"] = float(np.mean([trail[c] for c in inner]))
        return out

    def moving(self, item: Item) -> list[int]:
        return [AGENT]

    def counterfactual(self, item: Item, kind: PairKind, rng: np.random.Generator) -> Item | None:
        first, named = item.cells[0], item.metadata["colour"]
        goals = {colour: find(first, GOALS[colour]) for colour in COLOURS}
        other = next(colour for colour, at in goals.items() if at and colour != named)
        if kind == "prompt":
            return self.build(first, other, rng)
        swapped = first.copy()
        swapped[goals[named][0]], swapped[goals[other][0]] = GOALS[other], GOALS[named]
        return self.build(swapped, named, rng)

    def groups(self, item: Item, donor: Item) -> dict[str, np.ndarray]:
        own, theirs = parse_route(item.answer), parse_route(donor.answer)
        return disjoint(
            {
                "agent": one_hot_mask(own[:1]),
                "goals": one_hot_mask(find(item.cells[0], list(GOALS.values()))),
                "shared_route": one_hot_mask([c for c in own if c in theirs]),
                "target_route": one_hot_mask(own),
                "donor_route": one_hot_mask(theirs),
            }
        )

    def show(self, item: Item, answer: str) -> np.ndarray:
        return draw(item.cells[0], tuple(parse_route(answer)), len(item.cells))


def _pick(rng: np.random.Generator, cells: list[Cell]) -> Cell:
    return cells[rng.integers(len(cells))]


TASK = Maze()
