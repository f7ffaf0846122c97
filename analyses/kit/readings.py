"""What the verifier reads in the clean estimate of every step of a run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cos_interp.analyses.driver.statistics import distance
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.problems import Problem, item_of, judge, reading_columns, verdict_columns
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.trajectory import Run
from cos_interp.tasks import Item, get_task, reader


def commit_step(answers: Sequence[str | None]) -> int | None:
    """First step from which the answer is the last one and never changes; None when the last one is unreadable.

    >>> commit_step([None, "b", "a", None, "a", "a"])
    4
    """
    if not answers or answers[-1] is None:
        return None
    step = len(answers)
    while step and answers[step - 1] == answers[-1]:
        step -= 1
    return step


def answer_changes(answers: Sequence[str | None]) -> int:
    """How often the readable answer changes; unreadable steps in between are passed over."""
    seen = [a for a in answers if a is not None]
    return sum(a != b for a, b in zip(seen, seen[1:], strict=False))


def clean_videos(model: HookedVideoPipeline, run: Run) -> np.ndarray:
    """Decoded clean estimates of all steps and the final video, uint8 ``[step + 1, pixel frame, height, width, 3]``."""
    return model.decode(torch.cat([*run.x0hat, run.latents]))


def read_steps(problem: Problem, clips: np.ndarray, run: Run) -> list[Row]:
    """One row a step; the last one (step = number of steps) is the final video."""
    rows = []
    final = run.latents
    for step, clip in enumerate(clips):
        last = step == run.steps
        estimate = final if last else run.x0hat[step]
        row: Row = {"step": step, "sigma": 0.0 if last else run.sigmas[step]}
        row["distance"] = distance(estimate, final)
        verdict = judge(problem, clip)
        row |= verdict_columns(verdict)
        if verdict is not None and problem.scorer is not None:
            row |= reading_columns(verdict)
        if problem.item is not None:
            row |= {f"frame_{f}": bool(right) for f, right in enumerate(frames_right(problem, clip))}
        rows.append(row)
    return rows


def begun(read: np.ndarray, cells: np.ndarray) -> int:
    """How many frames, from the first on, of a video read as classes ``[frame, row, col]`` are those of another.

    >>> begun(np.array([[[1]], [[2]], [[3]]]), np.array([[[1]], [[2]], [[4]]]))
    2
    """
    same = (read == cells).all((1, 2))
    return int(same.argmin()) if not same.all() else len(same)


def right_from_first(item: Item, clip: np.ndarray) -> int:
    """How many frames of a video, from the first on, read as the true video of one of the right answers, as far as it goes."""
    read = reader.read(clip, len(clip))
    return max(begun(read, cells[: len(clip)]) for cells in get_task(item.task).right_videos(item))


def frames_right(problem: Problem, clip: np.ndarray) -> np.ndarray:
    """For each pixel frame: does it read as that frame of a true video of any right answer? bool ``[frame]``."""
    read = reader.read(clip)
    videos = get_task(problem.task).right_videos(item_of(problem))
    return np.max([(read == video).all((1, 2)) for video in videos], 0)
