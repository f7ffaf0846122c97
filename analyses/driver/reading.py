"""What the verifier of the tasks reads in the clips of a page, cell by cell, to be drawn into them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.tasks import NAMES, grid, reader

OWN = ("prompts", "pair_file", "from_steps", "clips", "video")  # settings that stand in the place of the tasks' items
NOTHING, UNREADABLE = ".", "?"  # marks of a cell: as at first, or floor; no sprite is seen
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def reads_cells(config: AnalysisConfig) -> bool:
    """Whether all videos of a run are of the tasks in the box, whose verifier reads cells."""
    tasks = getattr(config, "tasks", None) or (getattr(config, "task", None),)
    return all(task in NAMES for task in tasks) and not any(getattr(config, name, None) for name in OWN)


def read_cells(clips: np.ndarray, frames: tuple[int, ...]) -> dict[str, Any] | None:
    """The cells of clips ``[row, pixel frame, height, width, 3]``, uint8, that read as something that was not there in the first
    frame, and those that cannot be read. None for clips of a size in which the verifier reads none.

    ``marks``: of each clip, of each of ``frames``, a letter a cell, row by row; ``words``: the same counted, in words.
    """
    if clips.shape[2] % (grid.ROWS * grid.DOTS) or clips.shape[3] % (grid.COLS * grid.DOTS):
        return None
    read = np.stack([reader.read(clip, len(clip)) for clip in clips])
    new = np.where((read != read[:, :1]) & (read != grid.FLOOR), read, grid.FLOOR)
    new = np.where(read == grid.UNREADABLE, grid.UNREADABLE, new)[:, list(frames)]
    found = [int(one) for one in np.unique(new) if one not in (grid.UNREADABLE, grid.FLOOR)]
    letter = {grid.FLOOR: NOTHING, grid.UNREADABLE: UNREADABLE} | dict(zip(found, LETTERS, strict=False))
    marks = [["".join(letter[int(cell)] for cell in frame.ravel()) for frame in clip] for clip in new]
    names = {UNREADABLE: "cannot be read"} | {letter[one]: grid.CLASSES[one] for one in found}
    words = [[_counted(frame, names) for frame in clip] for clip in marks]
    return {"wide": grid.COLS, "tall": grid.ROWS, "marks": marks, "words": words}


def _counted(marks: str, names: dict[str, str]) -> str:
    counts = Counter(names[mark] for mark in marks if mark != NOTHING)
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "nothing new"
