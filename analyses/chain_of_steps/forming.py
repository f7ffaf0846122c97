"""When each frame of a run becomes right: along the steps in all frames at once, or frame after frame. Pure maths."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cos_interp.analyses.driver.estimates import Mean

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


def pixel_flags(rows: pd.DataFrame) -> np.ndarray:
    """``[step, latent frame, 2]``: are the two pixel frames of a latent frame right? The first frame is given and left out."""
    last = max(int(c.split("_")[1]) for c in rows if c.startswith("frame_"))
    columns = [f"frame_{f}" for f in range(1, last // 2 * 2 + 1)]
    return rows[columns].to_numpy(bool).reshape(len(rows), -1, 2)


def inside(flags: np.ndarray) -> float:
    """Steps by which the second pixel frame of a latent frame is right later than the first, of ``flags [step, latent frame,
    2]``, told as a slope is: two pixel frames on is one latent frame on. Mean over the latent frames of which neither is right at
    step 0: where one is, the other may wait for what forms its tokens. NaN where there are none.

    >>> inside(np.array([[[0, 0], [1, 0]], [[1, 0], [1, 0]], [[1, 0], [1, 0]], [[1, 1], [1, 1]]], bool))
    4.0
    """
    first, second = (first_right(flags[:, :, place]) for place in (0, 1))
    later = (second - first)[~flags[0].any(1)]
    return float(2 * later.mean()) if later.size else float("nan")


def forming(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a run in which the answer forms: right in all frames at the end and not yet at step 0.

    ``slope``: steps by which a latent frame is right later than the one before it, were the run one of ``OF_STEPS`` steps.
    ``inside``: the same between the two pixel frames of a latent frame, which are the same tokens and form at once: the control.
    """
    out: list[dict[str, object]] = []
    if "frame_1" not in rows:  # a scorer from outside judges a video whole
        rows = rows.iloc[:0]
    for (problem, noise), run in rows.groupby(["problem", "noise"], sort=False):
        pixels = pixel_flags(run.sort_values("step"))
        flags = np.asarray(pixels.all(2))
        if not flags[-1].all() or flags[0].all():
            continue
        scale = OF_STEPS / (len(flags) - 1)
        out.append({
            "problem": problem, "noise": noise, "task": run.task.iloc[0], "unique": bool(run["unique"].iloc[0]),
            "slope": slope(first_right(flags)) * scale, "inside": inside(pixels) * scale,
        })  # fmt: skip
    return pd.DataFrame(out, columns=["problem", "noise", "task", "unique", "slope", "inside"])


def within_bound(slopes: pd.Series) -> pd.Series:
    """One number an item, whose mean is the bound minus the size of the mean slope, and whose interval is that of the slope.

    An equivalence has two sides: the slope is inside the bound where the whole interval of the signed slope is. Told is the side
    on which that interval reaches further, which of a skewed sample may be the other one than its mean's. The absolute slope of
    each item would not do: their mean is above 0 for items that only scatter.
    """
    return min((LARGEST_SLOPE - side * slopes for side in (1.0, -1.0)), key=_least)


def _least(values: pd.Series) -> float:
    """What their mean is at the least; of values without an interval the mean itself."""
    low = Mean(values).interval()[0]
    return low if not np.isnan(low) or not len(values) else float(values.mean())


def only_inside(slopes: pd.Series, inside: pd.Series) -> str | None:
    """Why a slope beyond the bound is none of frames: it is not shown to exceed, by more than the bound, what later pixel frames
    come later inside a latent frame, where no frame can form after another. None where it is, and for slopes within the bound."""
    held = within_bound(slopes)
    if not Mean(held).interval()[1] < 0:
        return None
    side = -1.0 if slopes.mean() < 0 else 1.0
    if Mean(side * (slopes - inside)).interval()[0] > LARGEST_SLOPE:
        return None
    return (
        "inside a latent frame, which forms at once, later pixel frames are right later, too, by "
        f"{Mean(inside).number()} steps a latent frame: the slope is not shown to be one of frames"
    )
