"""Matched pairs of clips: what is possible, and the same made impossible at one moment. Every frame is a legal picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cos_interp.analyses.kit.clips import clip_of
from cos_interp.analyses.kit.problems import items
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.analyses.plausibility import PlausibilityConfig
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.tasks import Item, grid
from cos_interp.tasks.base import find
from cos_interp.tasks.bounce import BALLS, draw, reflect, roll
from cos_interp.tasks.grid import CLASS_ID, OBJECTS
from cos_interp.tasks.timing import odd, rate_of
from cos_interp.tasks.video import read_timed

FLIPS = ((-1, 1), (1, -1), (-1, -1))
FIRST_TURN, LAST_TURN = 3, 5  # pixel frames after which a ball may turn on nothing: the rest of its way is to be seen


@dataclass(frozen=True)
class ClipPair:
    """Two clips uint8 ``[pixel frame, height, width, 3]``, read when they are asked for, with what both are prompted by."""

    name: str
    task: str
    prompt: str
    broken: str
    seed: int
    possible: Callable[[HookedVideoPipeline], np.ndarray]
    impossible: Callable[[HookedVideoPipeline], np.ndarray]


def clip_pairs(config: PlausibilityConfig) -> list[ClipPair]:
    """The pairs of some settings. InterpError for a folder without pairs."""
    return list(_own(config) if config.clips is not None else _of_tasks(config))


def _of_tasks(config: PlausibilityConfig) -> Iterator[ClipPair]:
    for problem in items(config):
        item = problem.item
        assert item is not None
        made = BREAKS[item.task](item, np.random.default_rng(seed_for("surprise", problem.seed, "break")))
        if made is not None:
            cells, why = made
            yield ClipPair(problem.name, item.task, item.prompt, why, problem.seed, _shown(item.cells), _shown(cells))


def _shown(cells: np.ndarray) -> Callable[[HookedVideoPipeline], np.ndarray]:
    return lambda model: grid.render(cells)


def _own(config: PlausibilityConfig) -> Iterator[ClipPair]:
    for place, (name, sides) in enumerate(files_of_pairs(config)):
        text = Path(str(config.clips)) / f"{name}.txt"
        prompt = text.read_text().strip() if text.is_file() else ""
        yield ClipPair(name, "clips", prompt, "", seed_for("noise", *config.about, "clips", place), *map(_file, sides))


def files_of_pairs(config: PlausibilityConfig) -> list[tuple[str, tuple[Path, Path]]]:
    """The user's pairs by name: the possible clip and the impossible one. InterpError where one is alone, or none is there."""
    folder = Path(str(config.clips))
    possible, impossible = (
        {path.stem: path for path in sorted((folder / part).glob("*.mp4"))} for part in ("possible", "impossible")
    )
    alone = sorted(set(possible) ^ set(impossible))
    if alone or not possible:
        what = f"{alone[0]} is on one side only" if alone else "no pair is there"
        raise InterpError(f"--clips {folder}: {what}; give possible/NAME.mp4 and impossible/NAME.mp4 for each pair")
    return [(name, (possible[name], impossible[name])) for name in possible]


def check_rates(config: PlausibilityConfig) -> None:
    """InterpError for a pair whose clips are not shown at one steady rate: frame by frame they would part everywhere."""
    for name, sides in files_of_pairs(config):
        first, second = (read_timed(path)[1] for path in sides)
        if why := odd(first, None) or odd(second, rate_of(first), "the possible one"):
            raise InterpError(f"--clips {config.clips}: the clips of {name} are not alike: {why}: make both of one rate")


def _file(path: Path) -> Callable[[HookedVideoPipeline], np.ndarray]:
    return lambda model: clip_of(model, path).frames


# --- breaking ----------------------------------------------------------------------------------------------------------


def turned_on_nothing(item: Item, rng: np.random.Generator) -> tuple[np.ndarray, str] | None:
    """A bounce whose ball turns where nothing is, and rolls on by the rules from there. None where its way leaves no room."""
    first = np.where(np.isin(item.cells[0], list(BALLS)), grid.FLOOR, item.cells[0])
    at = [find(frame, list(BALLS))[0] for frame in item.cells]
    way = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(at, at[1:], strict=False)]
    sign = 1 if item.metadata["manner"] == "forward" else -1
    for moment in rng.permutation(np.arange(FIRST_TURN, LAST_TURN + 1)).tolist():
        for flip in rng.permutation(FLIPS).tolist():
            wrong = (way[moment][0] * flip[0], way[moment][1] * flip[1])
            rolled = roll(first, at[moment], wrong) if reflect(first, at[moment], wrong) == wrong else None
            if rolled is not None:
                path, velocities = [*at[:moment], *rolled[0]], [*_own_way(way, moment), *rolled[1][1:]]
                before = item.cells[: moment + 1]
                after = draw(item.cells[0], path[: grid.FRAMES], velocities[: grid.FRAMES], sign)[moment + 1 :]
                return np.concatenate([before, after]), f"the ball turns on nothing after frame {moment}"
    return None


def _own_way(way: list[tuple[int, int]], moment: int) -> list[tuple[int, int]]:
    """Velocities by pixel frame up to a moment; that of the first frame is of its first move."""
    return [way[0], *way[:moment]]


def came_back_another(item: Item, rng: np.random.Generator) -> tuple[np.ndarray, str] | None:
    """An occlusion whose hidden object comes back as another one. None where none is hidden and seen again."""
    name = item.metadata["hidden"][0]
    seen = (item.cells == CLASS_ID[name]).any((1, 2))
    gone = np.flatnonzero(~seen)
    back = np.flatnonzero(seen[gone[0] :]) if len(gone) else gone
    others = [other for other in OBJECTS if not (item.cells == CLASS_ID[other]).any()]
    if not len(back) or not others:
        return None
    other, cells = others[int(rng.integers(len(others)))], item.cells.copy()
    after = cells[gone[0] :]
    after[after == CLASS_ID[name]] = CLASS_ID[other]
    return cells, f"the {name} comes back as a {other}"


BREAKS = {"bounce": turned_on_nothing, "occlusion": came_back_another}
