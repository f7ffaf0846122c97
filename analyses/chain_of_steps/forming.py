"""When each frame of a run becomes right: along the steps in all frames at once, or frame after frame. Pure maths."""

from __future__ import annotations

import numpy as np
import pandas as pd

OF_STEPS = 20  # slopes are told in steps of a run of so many
LARGEST_SLOPE = 0.5  # steps per latent frame up to which frames count as forming together


def first_right(flags: np.ndarray) -> np.ndarray:
    """``[frame]``: the first step from which a frame is right to the end, of ``flags [step, frame]``; NaN where it is not then.

    >>> first_right(np.array([[1, 0], [0, 0], [1, 0]], bool)).tolist()
    [2.0, nan]
    """
    stays = np.logical_and.accumulate(flags[::-1], 0)[::-1]
    return np.where(flags[-1], stays.argmax(0), np.nan)


def slope(steps: np.ndarray) -> float:
    """Least-squares slope of one number a frame over the frame's index.

    >>> slope(np.array([3.0, 5.0, 7.0]))
    2.0
    """
    index = np.arange(len(steps)) - (len(steps) - 1) / 2
    return float(index @ steps / (index @ index))


def latent_flags(rows: pd.DataFrame) -> np.ndarray:
    """``[step, latent frame]``: are both pixel frames of a latent frame right? The first frame is given and left out."""
    columns = sorted(int(c.split("_")[1]) for c in rows if c.startswith("frame_"))
    pairs = [[f"frame_{f}" for f in columns if f > 0 and (f + 1) // 2 == latent] for latent in range(1, columns[-1] // 2 + 1)]
    return np.stack([rows[pair].to_numpy(bool).all(1) for pair in pairs], 1)


def forming(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a run in which the answer forms: right in all frames at the end and not yet at step 0.

    ``slope``: steps by which a latent frame is right later than the one before it, were the run one of ``OF_STEPS`` steps.
    ``dealt``: the same with the frames in a random order, the control.
    """
    chance, out = np.random.default_rng(0), []
    if "frame_1" not in rows:  # a scorer from outside judges a video whole
        rows = rows.iloc[:0]
    for (problem, noise), run in rows.groupby(["problem", "noise"], sort=False):
        flags = latent_flags(run.sort_values("step"))
        if not flags[-1].all() or flags[0].all():
            continue
        steps = first_right(flags) * OF_STEPS / (len(flags) - 1)
        out.append({
            "problem": problem, "noise": noise, "task": run.task.iloc[0], "unique": bool(run["unique"].iloc[0]),
            "slope": slope(steps), "dealt": slope(chance.permutation(steps)),
        })  # fmt: skip
    return pd.DataFrame(out, columns=["problem", "noise", "task", "unique", "slope", "dealt"])


def within_bound(slopes: pd.Series) -> pd.Series:
    """One number an item, whose mean is the bound minus the absolute mean slope, and whose interval is that of the slope.

    An equivalence by the side on which the slope lies: it is inside the bound where the interval of the signed slope, turned to
    its own side, lies below it. The absolute slope of each item would not do: their mean is above 0 for items that only scatter.
    """
    side = -1.0 if len(slopes) and slopes.mean() < 0 else 1.0
    return LARGEST_SLOPE - side * slopes
