"""What a probe must beat: the same probe on what goes into the model at a token."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cos_interp.interp.trajectory import Run

INPUTS = ("x_t", "first frame", "position")


def as_tokens(latent: Tensor, grid: tuple[int, int, int]) -> np.ndarray:
    """A latent ``[channel, frame, row, col]`` by token, ``[frame, row, col, channel * patch]``."""
    channels, *size = latent.shape
    by = [have // want for have, want in zip(size, grid, strict=True)]
    cut = latent.detach().float().cpu().reshape(channels, grid[0], by[0], grid[1], by[1], grid[2], by[2])
    return cut.permute(1, 3, 5, 0, 2, 4, 6).flatten(3).numpy()


def first_frame(run: Run, grid: tuple[int, int, int]) -> np.ndarray | None:
    """The encoded first frame by token, the same for tokens of all frames, ``[frame, row, col, k]``; None without an image.

    Wan pipelines prepare ``(latents, condition)``, where the condition ends with the encoded image.
    """
    if not isinstance(run.prepared, tuple) or len(run.prepared) < 2 or run.prepared[1].ndim != 5:
        return None
    condition = run.prepared[1][0, -run.latents.shape[1] :, :1]
    one = as_tokens(condition, (1, *grid[1:]))
    return np.broadcast_to(one, (*grid, one.shape[-1]))


def one_hot_position(position: np.ndarray, grid: tuple[int, int, int]) -> np.ndarray:
    """Position ``[row, 3]`` of tokens as indicators of the single token ``[row, frames * rows * cols]``, where that many are
    affordable (512), else of frame, row and col apart."""
    total = int(np.prod(grid))
    if total <= 512:
        index = np.ravel_multi_index(position.T, grid)
        return np.eye(total, dtype=np.float32)[index]
    return np.concatenate([np.eye(n, dtype=np.float32)[position[:, i]] for i, n in enumerate(grid)], 1)
