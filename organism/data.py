"""Training clips by index: the same index gives the same clip, whatever the batch size, the worker or the order."""

from __future__ import annotations

import numpy as np
import torch

from cos_interp.tasks import TASKS, Item, grid

# "hard" restricts a task to HARD difficulties: long chains are learned last
MIXTURE = {"maze": 0.18, "maze hard": 0.05, "place": 0.26, "occlusion": 0.15, "bounce": 0.1, "bounce hard": 0.26}
HARD = {"maze": (6, 7, 8), "bounce": (5, 6, 7, 8)}
TRAIN_SEED = 1_000_000_000  # items of the suite have small seeds; the split by first frame keeps the scenes apart


def item(index: int) -> Item:
    """Clip ``index`` of the endless training set, from the train split only."""
    rng = np.random.default_rng([TRAIN_SEED, index])
    name, _, hard = str(rng.choice(list(MIXTURE), p=list(MIXTURE.values()))).partition(" ")
    return TASKS[name].sample(TRAIN_SEED + index, int(rng.choice(HARD[name])) if hard else None, split="train")


def scramble(index: int) -> np.ndarray:
    """A clip of random cells with random changes, ``[FRAMES, ROWS, COLS]``, so that the VAE learns every sprite anywhere."""
    rng = np.random.default_rng([TRAIN_SEED, index, 1])
    shape = (grid.FRAMES, grid.ROWS, grid.COLS)
    cells = np.where(rng.random(shape[1:]) < 0.25, grid.FLOOR, rng.integers(0, len(grid.CLASSES), shape[1:]))
    clip = np.repeat(cells[None], grid.FRAMES, 0)
    rate = rng.choice([0.02, 0.1, 0.3])
    for frame in range(1, grid.FRAMES):
        changed = rng.random(shape[1:]) < rate
        fresh = np.where(rng.random(shape[1:]) < 0.3, grid.FLOOR, rng.integers(0, len(grid.CLASSES), shape[1:]))
        clip[frame] = np.where(changed, fresh, clip[frame - 1])
    return clip


def to_tensor(cells: np.ndarray) -> torch.Tensor:
    """Classes ``[batch, frame, row, col]`` as dots in [-1, 1], ``[batch, 3, frame, height, width]`` (see organism/widen.py)."""
    pixels = torch.from_numpy(grid.draw_dots(cells)).permute(0, 4, 1, 2, 3)
    return pixels.float().div_(127.5).sub_(1.0)


def first_frame_only(video: torch.Tensor) -> torch.Tensor:
    """The condition video of Wan image-to-video: first frame, then zeros (mid grey)."""
    condition = torch.zeros_like(video)
    condition[:, :, 0] = video[:, :, 0]
    return condition
