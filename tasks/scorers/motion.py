"""Something moves, in the whole video: the least that a video model is asked for, and what a frozen picture lacks."""

from __future__ import annotations

import numpy as np

from cos_interp.tasks.item import Verdict
from cos_interp.tasks.scorer import Case
from cos_interp.tasks.scorers.pictures import as_float, changes

LEAST = 0.05  # change of a patch's mean grey between two frames, of 1


def judge(video: np.ndarray, case: Case) -> Verdict:
    """*solved* where a patch of the picture changes by ``least`` at least once, else *wrong: frozen*.

    ``expected``: {"least": 0.05}. Readings: ``motion``, the largest change; ``moving``, the share of changes as large.
    """
    if len(video) < 2:
        raise ValueError("a video of one frame cannot move")
    least = float((case.expected or {}).get("least", LEAST))
    found = changes(as_float(video))
    readings = {"motion": float(found.max()), "moving": float((found >= least).mean())}
    return Verdict("solved" if found.max() >= least else "wrong", "" if found.max() >= least else "frozen", readings=readings)
