"""A video of cell classes as text, for terminals and test failures."""

from __future__ import annotations

import numpy as np

from cos_interp.tasks import grid

_LETTERS = {"floor": ".", "wall": "#", "agent": "A", "trail": "*", "board": "=", "box": "B"}
_LETTERS |= {name: name[0].upper() + "G" for name in grid.CLASSES if name.endswith("goal")}
_LETTERS |= {f"ball {h}": a for h, a in zip(grid.HEADINGS, ("o\\", "/o", "o/", "\\o"), strict=True)}
_LETTERS |= {name: name[0] + name.split()[1][0] for name in grid.OBJECTS}


def as_text(cells: np.ndarray) -> str:
    """Frames beside each other, two characters a cell; ``?`` for an unreadable one."""

    def letters(value: int) -> str:
        return "? " if value == grid.UNREADABLE else _LETTERS[grid.CLASSES[value]].ljust(2)

    rows = [" | ".join(" ".join(letters(v) for v in frame[row]) for frame in cells) for row in range(grid.ROWS)]
    return "\n".join(rows)
