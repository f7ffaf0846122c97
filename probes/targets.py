"""What a probe may be asked to read: targets in three families, from the task's labels or from the model's own video."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cos_interp.probes.clip import Clip
from cos_interp.probes.errors import ProbeError
from cos_interp.probes.inputs import as_tokens
from cos_interp.tasks import grid

Family = Literal["perception", "reasoning", "consolidation"]
CLASSIFY, REGRESS = "classes", "values"


@dataclass(frozen=True)
class Target:
    """``label(clip)`` gives ``[frame, row, col]``, a scalar for the whole clip, or for values also ``[frame, row, col, k]``;
    None or -1 (NaN for values): no label. ``tasks``: where it exists; None for every video, also without an item."""

    name: str
    family: Family
    about: str
    label: Callable[[Clip], Any]
    tasks: tuple[str, ...] | None = None
    form: Literal["classes", "values"] = CLASSIFY
    names: tuple[str, ...] = ()

    def read(self, clip: Clip) -> np.ndarray:
        """Labels ``[frame, row, col]`` (or ``[..., k]``) of a clip; all missing where the target does not exist."""
        exists = self.tasks is None or (clip.item is not None and clip.item.task in self.tasks)
        found = self.label(clip) if exists else None
        missing = -1 if self.form == CLASSIFY else np.nan
        kind = np.int64 if self.form == CLASSIFY else np.float64
        found = np.asarray(missing if found is None else found, kind)
        if found.ndim == 0:
            return np.full(clip.grid, found)
        if found.shape[:3] != clip.grid:
            raise ProbeError(
                f"target {self.name!r}: labels of shape {found.shape} for tokens {clip.grid}; give [frame, row, col]"
            )
        return found


TARGETS: dict[str, Target] = {}


def register(target: Target) -> Target:
    """Make a target known by its name, for ``collect`` and the command line. ProbeError for a name that is taken."""
    if TARGETS.get(target.name, target) is not target:
        raise ProbeError(f"there is a target {target.name!r} already: choose another name")
    TARGETS[target.name] = target
    return target


def resolve(targets: Iterable[str | Target]) -> list[Target]:
    """Targets by name or as they are."""
    out = []
    for target in [targets] if isinstance(targets, (str, Target)) else targets:
        if isinstance(target, str) and target not in TARGETS:
            raise ProbeError(f"unknown target {target!r}; there are {', '.join(TARGETS)}, or pass a probes.Target of your own")
        out.append(TARGETS[target] if isinstance(target, str) else target)
    return out


# --- the tasks' targets --------------------------------------------------------------------------------------------


def _spread(cells: np.ndarray) -> np.ndarray:
    """A property of the cells ``[row, col]`` for the tokens of all latent frames."""
    return np.broadcast_to(cells, (grid.LATENT_FRAMES, *cells.shape))


def _table(part: int) -> np.ndarray:
    """Class -> index of its colour (part 0) or shape (part 1); -1 for sprites that have none."""
    out = np.full(len(grid.CLASSES), -1)
    for i, name in enumerate(grid.CLASSES):
        words = name.split()
        if len(words) == 2 and words[0] in grid.COLOURS:
            names = (list(grid.COLOURS), ["goal", *grid.SHAPES])[part]
            out[i] = names.index(words[part])
    return out


def _final_latent(clip: Clip) -> np.ndarray:
    return as_tokens(clip.run.latents[0], clip.grid)


def _task_label(name: str) -> Callable[[Clip], np.ndarray | None]:
    return lambda clip: clip.labels.get(name)


ALL = ("maze", "occlusion", "bounce", "place")
CELLS = tuple(str(i) for i in range(grid.ROWS * grid.COLS))

OBJECTS = ("maze", "occlusion", "place")

for _target in (
    Target("cell_class", "perception", "what the cell shows at the token's time", _task_label("cell_class"), ALL,
           names=grid.CLASSES),
    Target("first_class", "perception", "what the cell shows in the given first frame",
           lambda clip: _spread(clip.item.cells[0]), ALL, names=grid.CLASSES),
    Target("first_colour", "perception", "colour of what stands in the cell in the first frame",
           lambda clip: _spread(_table(0)[clip.item.cells[0]]), OBJECTS, names=tuple(grid.COLOURS)),
    Target("first_shape", "perception", "shape of what stands in the cell in the first frame",
           lambda clip: _spread(_table(1)[clip.item.cells[0]]), OBJECTS, names=("goal", *grid.SHAPES)),
    Target("on_path", "reasoning", "is the cell on the solution path", _task_label("on_path"), ("maze", "bounce", "place"),
           names=("off", "on")),
    Target("next_direction", "reasoning", "where the route leads from the cell", _task_label("next_direction"), ("maze",),
           names=("up", "down", "left", "right")),
    Target("goal", "reasoning", "colour of the named goal (whole clip)", _task_label("goal"), ("maze",),
           names=tuple(grid.COLOURS)),
    Target("hidden_identity", "reasoning", "what is out of sight at the token's time", _task_label("hidden_identity"),
           ("occlusion",), names=grid.CLASSES),
    Target("object", "reasoning", "the object that is moved or hidden (whole clip)", _task_label("object"),
           ("occlusion", "place"), names=grid.CLASSES),
    Target("return_place", "reasoning", "cell where the hidden object ends (whole clip)", _task_label("return_place"),
           ("occlusion",), names=CELLS),
    Target("ball_position", "reasoning", "cell of the ball at the token's time", _task_label("ball_position"), ("bounce",),
           names=CELLS),
    Target("manner", "reasoning", "forward or backward (whole clip)", _task_label("manner"), ("bounce",),
           names=("forward", "backward")),
    Target("object_position", "reasoning", "cell of the object at the token's time", _task_label("object_position"),
           ("place",), names=CELLS),
    Target("final_position", "consolidation", "cell where it ends (whole clip)", _task_label("final_position"),
           ("bounce", "place"), names=CELLS),
    Target("final_class", "consolidation", "what the cell shows in the last frame of the model's own video",
           lambda clip: _spread(clip.cells[-1]), ALL, names=grid.CLASSES),
    Target("solved", "consolidation", "did this run solve the problem (whole clip)", lambda clip: int(clip.verdict.solved), ALL,
           names=("no", "yes")),
    Target("final_latent", "consolidation", "the final latent of the token, by regression", _final_latent, None, REGRESS),
):  # fmt: skip
    register(_target)
