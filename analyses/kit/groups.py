"""Token groups of a pair as disjoint masks that cover the grid: the task's own, or boxes that the user draws."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cos_interp.analyses.kit.grid import EVERYWHERE, token_shape
from cos_interp.analyses.kit.pairs import Side
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.tasks import get_task

REST = "rest"


def of_pair(
    model: HookedVideoPipeline, target: Side, donor: Side, boxes: Mapping[str, tuple[int, int, int, int]]
) -> dict[str, Tensor]:
    """Bool ``[frame, row, col]`` by name. All tokens as one group where a pair has neither items nor boxes, or where the model's
    tokens are not the scene's cells. InterpError for boxes that lie outside the video, hold no token, or share one."""
    shape = token_shape(model, target)
    if target.problem.item is not None and donor.problem.item is not None:
        masks = get_task(target.item.task).groups(target.item, donor.item)
        if all(mask.shape == shape for mask in masks.values()):
            return {name: torch.from_numpy(mask) for name, mask in masks.items() if mask.any()}
    if not boxes:
        return {EVERYWHERE: torch.ones(shape, dtype=torch.bool)}
    return of_boxes(boxes, shape, _pixels(model, target), target.problem.source)


def _pixels(model: HookedVideoPipeline, side: Side) -> tuple[int, int]:
    """Height and width of a side's video; only where nothing says them is it decoded."""
    said = [side.recording.run.kwargs.get(name) or model.default(name) for name in ("height", "width")]
    height, width = said if all(said) else side.recording.run.decode().shape[2:4]
    return int(height), int(width)


def of_boxes(
    boxes: Mapping[str, tuple[int, int, int, int]], shape: tuple[int, int, int], pixels: tuple[int, int], where: str
) -> dict[str, Tensor]:
    """In all frames: the tokens whose middle lies in a box, and the rest.

    >>> {k: int(m.sum()) for k, m in of_boxes({"a": (0, 0, 16, 8)}, (1, 4, 4), (32, 32), "").items()}
    {'a': 2, 'rest': 14}
    """
    (height, width), (_, rows, cols) = pixels, shape
    down, across = (torch.arange(rows) + 0.5) * height / rows, (torch.arange(cols) + 0.5) * width / cols
    free, out = torch.ones(shape, dtype=torch.bool), {}
    for name, (left, top, right, bottom) in boxes.items():
        if right > width or bottom > height:
            raise InterpError(f"{where}: box {name!r} ends at {right}, {bottom}; the video has {width}x{height} pixels")
        inside = ((down >= top) & (down < bottom))[:, None] & ((across >= left) & (across < right))[None]
        mask = inside.expand(shape).clone()
        if not mask.any():
            raise InterpError(
                f"{where}: box {name!r} holds the middle of no token; one is {width // cols}x{height // rows} pixels"
            )
        if (mask & ~free).any():
            raise InterpError(f"{where}: box {name!r} shares tokens with another one: draw them apart")
        free, out[name] = free & ~mask, mask
    return out | ({REST: free} if free.any() else {})
