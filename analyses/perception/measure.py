"""Perception before action (CoS section 4): are objects localised at an earlier step than motion appears?

Both are read from the decoded clean estimate of every step, leniently (nearest sprite), as numbers from 0 to 1, and each
counts as there from the first step at which it has half of its value in the final video. Without a verifier the same is
read from the latents: what stays over time, and what changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.facts import PIXELS, RunFacts
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.problems import Problem, each_problem, fits, generate, item_of, judge, verdict_columns
from cos_interp.analyses.kit.readings import clean_videos
from cos_interp.analyses.kit.tracks import nearest_sprites
from cos_interp.analyses.perception import PerceptionConfig
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.trajectory import Run
from cos_interp.tasks import get_task, grid

BALL = min(number for number, name in enumerate(grid.CLASSES) if name.startswith("ball"))
# all headings of the ball are one thing here: where it is, not where it looks
SAME = np.array([BALL if name.startswith("ball") else number for number, name in enumerate(grid.CLASSES)])


def moving_classes(true: np.ndarray) -> list[int]:
    """Classes that stand in some frame where they did not stand in the first, but no floor and no trail."""
    new = true[true != true[:1]]
    return sorted(set(new.tolist()) - {grid.FLOOR, grid.TRAIL})


def overlap(shown: np.ndarray, true: np.ndarray) -> float:
    """Intersection over union of two boolean masks; NaN when both are empty."""
    union = (shown | true).sum()
    return float((shown & true).sum() / union) if union else math.nan


def class_overlap(shown: np.ndarray, true: np.ndarray, classes: Sequence[int]) -> float:
    """Mean IoU over classes of the cells of all frames after the first; NaN without any."""
    found = [overlap(shown[1:] == c, true[1:] == c) for c in classes]
    found = [value for value in found if not math.isnan(value)]
    return float(np.mean(found)) if found else math.nan


def footprint_overlap(shown: np.ndarray, true: np.ndarray, classes: Sequence[int]) -> float:
    """IoU of all cells that a thing visits after the first frame, whenever it does: where it is, without its motion."""
    visited, right = (np.asarray(np.isin(cells[1:], classes).any(0)) for cells in (shown, true))
    return overlap(visited, right)


def motion(shown: np.ndarray, true: np.ndarray, classes: Sequence[int]) -> float:
    """Share of the (frame, cell) places where a thing truly is but was not at first, that show it; NaN without any."""
    displaced = np.isin(true, classes) & (true != true[:1])
    return float((shown == true)[displaced].mean()) if displaced.any() else math.nan


def readings(shown: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """All readings of one video against the true one, both ``[pixel frame, row, col]`` of classes.

    ``localised``: IoU of all objects (all but floor and trail), frames after the first. Controls: ``still``, of the objects
    that never move; ``moving_place``, of the moving thing's footprint; ``motion_shuffled``, motion with the frames reversed.
    """
    shown, true = SAME[shown], SAME[true]
    classes = moving_classes(true)
    objects = sorted(set(true.flatten().tolist()) - {grid.FLOOR, grid.TRAIL})
    reversed_frames = np.concatenate([shown[:1], shown[:0:-1]])
    return {
        "localised": class_overlap(shown, true, objects),
        "still": class_overlap(shown, true, [c for c in objects if c not in classes]),
        "moving_place": footprint_overlap(shown, true, classes),
        "motion": motion(shown, true, classes),
        "motion_shuffled": motion(reversed_frames, true, classes),
    }


def first_step(values: Sequence[float], least: float = 0.5) -> float:
    """First step with half of the last value; NaN when the last value itself is below ``least`` or undefined.

    >>> first_step([0.1, 0.2, 0.5, 0.8])
    2.0
    """
    last = values[-1]
    if not last >= least:
        return math.nan
    return float(next(step for step, value in enumerate(values) if value >= last / 2))


def nearest_true(problem: Problem, shown: np.ndarray) -> np.ndarray:
    """The true video of the right answer that the final video comes closest to; the same for all steps."""
    videos = get_task(problem.task).right_videos(item_of(problem))
    return max(videos, key=lambda video: int((video == shown).sum()))


def latent_readings(estimate: Tensor, final: Tensor) -> dict[str, float]:
    """Likeness to the final latent of what stays over time and of what changes; both ``[channel, frame, row, col]``.

    ``appearance``: cosine of the means over frames, without each channel's mean; ``movement``: cosine of what is left
    when the mean over frames is taken away, 0 for a still latent.
    """

    def parts(latent: Tensor) -> tuple[Tensor, Tensor]:
        mean = latent.mean(1, keepdim=True)
        return (mean - mean.mean((2, 3), keepdim=True)).flatten(), (latent - mean).flatten()

    pairs = zip(parts(estimate.double()), parts(final.double()), strict=True)
    both = [float(torch.cosine_similarity(a, b, dim=0)) for a, b in pairs]
    return {"appearance": both[0], "movement": both[1]}


def read_run(problem: Problem, run: Run, clips: np.ndarray | None) -> list[Row]:
    """One row a step; the last one (step = number of steps) is the final video."""
    estimates = [*run.x0hat, run.latents]
    shown = [] if clips is None else [nearest_sprites(clip) for clip in clips]
    true = nearest_true(problem, shown[-1]) if shown else None
    rows = []
    for step, estimate in enumerate(estimates):
        row = {"step": step, "sigma": run.sigmas[step] if step < run.steps else 0.0}
        row |= latent_readings(estimate[0], run.latents[0])
        if true is not None:
            row |= readings(shown[step], true)
        rows.append(row)
    return rows


def lags(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a problem: the first step of every reading, and how many steps the motion comes later."""
    out = []
    for problem, run in rows.groupby("problem", sort=False):
        run = run.sort_values("step")
        names = [
            n for n in ("localised", "still", "moving_place", "motion", "motion_shuffled", "appearance", "movement") if n in run
        ]
        at = {name: first_step(run[name].astype(float).tolist()) for name in names}
        row = {"problem": problem, "task": run.task.iloc[0], **{f"{n}_step": step for n, step in at.items()}}
        for name in ("localised", "still", "moving_place"):
            if name in at:
                row[f"lag_{name}"] = at["motion"] - at[name]
        out.append({**row, "lag_appearance": at["movement"] - at["appearance"]})
    return pd.DataFrame(out)


def measure(model: HookedVideoPipeline, config: PerceptionConfig, problem: Problem) -> Unit:
    run = generate(model, config, problem)
    clips = clean_videos(model, run) if problem.item is not None else None
    verdict = verdict_columns(None if clips is None else judge(problem, clips[-1]))
    rows = [{**problem.facts, **row, "final_status": verdict["status"]} for row in read_run(problem, run, clips)]
    kept = {"frames": torch.from_numpy(clips)} if clips is not None and problem.first else {}
    axes = dict.fromkeys(kept, ("step", *PIXELS))
    return Unit(rows, kept, RunFacts(axes=axes, sigmas=tuple(run.sigmas), prompt=problem.call["prompt"]))


pieces = each_problem
work = each_unit(measure)
check = fits
