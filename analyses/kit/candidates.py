"""From videos of an item to the latents that a model's autoencoder makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cos_interp.interp.encoding import encode
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.own_size import own_size
from cos_interp.tasks import Item, get_task, grid


@dataclass(frozen=True)
class Candidates:
    """Latents of a problem's right answers ``[answer, channel, frame, row, col]``, in the order of ``answers``.

    ``nothing``: that of a video in which the first frame stays.
    """

    answers: tuple[str, ...]
    latents: Tensor
    nothing: Tensor


def candidates(model: HookedVideoPipeline, item: Item, like: Tensor) -> Candidates | None:
    """The right answers of an item as latents of the shape of ``like [1, channel, frame, row, col]``.

    None where the model's autoencoder gives no such latents.
    """
    videos = [*get_task(item.task).right_videos(item), np.repeat(item.cells[:1], len(item.cells), 0)]
    found = encoded(model, np.stack([grid.render(video) for video in videos]))
    if found is None or found.shape[1:] != like.shape[1:]:
        return None
    return Candidates(item.answers, found[:-1], found[-1])


def encoded(model: HookedVideoPipeline, videos: np.ndarray) -> Tensor | None:
    """Normalised latents ``[video, channel, frame, row, col]`` of videos uint8 ``[video, pixel frame, height, width, 3]``.

    See :func:`cos_interp.interp.encoding.encode`. The videos are enlarged to the size that the model makes by whole numbers. None
    where the model's family has no such latents, or its autoencoder does not say how they are scaled.
    """
    made = own_size(model.pipe, model.defaults)
    height, width = (made.get(key, own) for key, own in zip(("height", "width"), videos.shape[2:4], strict=True))
    larger = videos.repeat(height // videos.shape[2], 2).repeat(width // videos.shape[3], 3)
    try:
        return encode(model, larger)
    except InterpError:
        return None
