"""Exact match with a reference video. A line of ``--prompts`` names it: ``"reference": "true.mp4"``."""

from __future__ import annotations

import numpy as np

from cos_interp.tasks.item import Verdict
from cos_interp.tasks.scorer import Case
from cos_interp.tasks.scorers.pictures import regions, same_size, ssim

REGIONS = 8  # a side
COLOUR = 0.1  # largest difference of a region's mean colour, of 1, that still matches
LEAST_SSIM = 0.6  # of the worst frame: compression and rounding lie above, another object below


def judge(video: np.ndarray, case: Case) -> Verdict:
    """*solved* where every region of every frame has the reference's colour and every frame its structure; else *wrong*, named
    by what is wrong first: the first frame, the last one, or the way between. Readings: ``ssim`` (mean over frames),
    ``colour`` (largest difference of a region), ``right_frames`` (share).

    ValueError, so *undecided*, without a reference, and for a video of another length or shape.
    """
    if case.truth is None:
        raise ValueError(f"{case.name} has no reference video: give it under 'reference'")
    one, other = same_size(video, case.truth)
    alike = np.array([ssim(a, b) for a, b in zip(one, other, strict=True)])
    apart = np.abs(regions(one, REGIONS) - regions(other, REGIONS)).max((1, 2, 3))
    right = (apart <= COLOUR) & (alike >= LEAST_SSIM)
    readings = {"ssim": float(alike.mean()), "colour": float(apart.max()), "right_frames": float(right.mean())}
    if right.all():
        return Verdict("solved", readings=readings)
    error = "first frame changed" if not right[0] else "wrong end" if not right[-1] else "wrong way"
    return Verdict("wrong", error, readings=readings)
