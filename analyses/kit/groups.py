"""Token groups of a pair as disjoint masks that cover the grid: the task's own, or boxes that the user draws."""

from __future__ import annotations

import torch
from torch import Tensor

from cos_interp.analyses.kit.grid import EVERYWHERE, token_shape
from cos_interp.analyses.kit.pair_file import Boxes
from cos_interp.analyses.kit.pairs import Side
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.views import pixel_to_latent
from cos_interp.tasks import get_task

REST = "rest"


def of_pair(model: HookedVideoPipeline, target: Side, donor: Side, boxes: Boxes) -> dict[str, Tensor]:
    """Bool ``[frame, row, col]`` by name. All tokens as one group where a pair has neither items nor boxes, or where the model's
    tokens are not the scene's cells. InterpError for boxes that lie outside the video, hold no token, or share one."""
    shape = token_shape(model, target)
    if target.problem.item is not None and donor.problem.item is not None:
        masks = get_task(target.item.task).groups(target.item, donor.item)
        if all(mask.shape == shape for mask in masks.values()):
            return {name: torch.from_numpy(mask) for name, mask in masks.items() if mask.any()}
    if not boxes:
        return {EVERYWHERE: torch.ones(shape, dtype=torch.bool)}
    why = model.adapter.unlike_video(model.adapter.expert(model.pipe).config)
    if why is not None and any(frame is not None for by_frame in boxes.values() for frame in by_frame):
        raise InterpError(
            f"{target.problem.source}: {type(model.pipe).__name__} has no latent frame for a pixel frame ({why}): draw boxes "
            "of all frames, [left, top, right, bottom]"
        )
    return of_boxes(boxes, shape, _pixels(model, target), target.problem.source)


def named(boxes: Boxes) -> set[str]:
    """The groups that a pair of a file may have, by its boxes.

    >>> sorted(named({"ball": {None: (0, 0, 8, 8)}})), named({})
    (['ball', 'rest'], {'all'})
    """
    return {*boxes, REST} if boxes else {EVERYWHERE}


def _pixels(model: HookedVideoPipeline, side: Side) -> tuple[int, int, int]:
    """Frames, height and width of a side's video; only where nothing says them is it decoded."""
    said = [side.recording.run.kwargs.get(name) or model.default(name) for name in ("num_frames", "height", "width")]
    frames, height, width = said if all(said) else side.recording.run.decode().shape[1:4]
    return int(frames), int(height), int(width)


def of_boxes(boxes: Boxes, shape: tuple[int, int, int], pixels: tuple[int, int, int], where: str) -> dict[str, Tensor]:
    """The tokens whose middle lies in a box, in one of the pixel frames that their latent frame holds, and the rest.

    >>> boxes = {"a": {None: (0, 0, 16, 8)}, "b": {4: (16, 24, 32, 32)}}
    >>> {k: int(m.sum()) for k, m in of_boxes(boxes, (3, 4, 4), (9, 32, 32), "").items()}
    {'a': 6, 'b': 2, 'rest': 40}
    """
    (frames, height, width), (_, rows, cols) = pixels, shape
    latent = pixel_to_latent(frames, shape[0])
    free, out = torch.ones(shape, dtype=torch.bool), {}
    for name, by_frame in boxes.items():
        mask = torch.zeros(shape, dtype=torch.bool)
        for frame, (left, top, right, bottom) in by_frame.items():
            if right > width or bottom > height or (frame is not None and frame >= frames):
                at = "" if frame is None else f" in frame {frame}"
                raise InterpError(
                    f"{where}: box {name!r} ends at {right}, {bottom}{at}; the video has {width}x{height} pixels, {frames} frames"
                )
            inside = _between(rows, height, top, bottom)[:, None] & _between(cols, width, left, right)[None]
            mask[slice(None) if frame is None else int(latent[frame])] |= inside
        if not mask.any():
            raise InterpError(
                f"{where}: box {name!r} holds the middle of no token; one is {width // cols}x{height // rows} pixels"
            )
        if (mask & ~free).any():
            raise InterpError(f"{where}: box {name!r} shares tokens with another one: draw them apart")
        free, out[name] = free & ~mask, mask
    return out | ({REST: free} if free.any() else {})


def _between(tokens: int, pixels: int, start: int, end: int) -> Tensor:
    """Which of so many tokens along an axis have their middle between two pixels."""
    middle = (torch.arange(tokens) + 0.5) * pixels / tokens
    return (middle >= start) & (middle < end)
