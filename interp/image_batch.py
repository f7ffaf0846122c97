"""A batch with an image a row, for pipelines that encode one image only: each row is prepared alone, then all are joined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from cos_interp.interp.errors import InterpError
from cos_interp.interp.run.director import Around, Director


class Prepared(Around):
    """Another director, in a run whose first latents and conditions were prepared before."""

    def __init__(self, inner: Director, prepared: tuple[Any, ...]):
        super().__init__(inner)
        self.given = prepared

    def prepare(self, prepare: Callable[[], Any]) -> Any:
        return self.given


def prepared_each(pipe: Any, kwargs: dict[str, Any], default: Callable[[str], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What ``prepare_latents`` gives for a list of images, and the keywords of the run that takes it.

    ``default``: the model's default of a keyword. Raises InterpError for pipelines other than Wan's image-to-video.
    """
    if not hasattr(pipe.config, "expand_timesteps"):
        raise InterpError(f"only Wan's image-to-video takes a list of images, {type(pipe).__name__} takes one a run")
    images, generators = kwargs["image"], kwargs.get("generator") or [None] * len(kwargs["image"])
    given = kwargs.get("latents")
    height, width, frames = (kwargs.get(k) or default(k) for k in ("height", "width", "num_frames"))
    rows = []
    for row, (image, generator) in enumerate(zip(images, generators, strict=True)):
        pixels = pipe.video_processor.preprocess(image, height=height, width=width)
        rows.append(
            pipe.prepare_latents(
                pixels.float(), 1, pipe.vae.config.z_dim, height, width, frames, torch.float32, pipe._execution_device,
                generator, None if given is None else given[row : row + 1],
            )
        )  # fmt: skip
    joined = [torch.cat(parts) for parts in zip(*rows, strict=True)]
    if pipe.config.expand_timesteps:  # TI2V-5B: the last item is one mask for all rows
        joined[-1] = rows[0][-1]
    return tuple(joined), {**kwargs, "image": images[0], "generator": None}
