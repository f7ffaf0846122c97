"""Clips of the user's, in the size and length that a model makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.own_size import own_size
from cos_interp.tasks.video import read_mp4


def clip_of(model: HookedVideoPipeline, path: Path) -> np.ndarray:
    """The frames of a file in the model's own size and length, uint8 ``[pixel frame, height, width, 3]``.

    Larger or smaller pictures are scaled, what sticks out at two sides is cut; of a longer clip the first frames are taken.
    InterpError for a file that is no video, and for a clip that is too short.
    """
    try:
        frames = read_mp4(path)
    except ValueError as error:
        raise InterpError(str(error)) from error
    return fitted(frames, model, str(path))


def fitted(frames: np.ndarray, model: HookedVideoPipeline, where: str) -> np.ndarray:
    """Frames uint8 ``[pixel frame, height, width, 3]`` as :func:`clip_of` has them."""
    size = own_size(model.pipe, model.defaults)
    own = dict(zip(("num_frames", "height", "width"), frames.shape[:3], strict=True)) | size
    count, height, width = (own[key] for key in ("num_frames", "height", "width"))
    if len(frames) < count:
        raise InterpError(f"{where} has {len(frames)} frames, and the model makes {count}: give a longer clip, or --num-frames")
    if frames.shape[1:3] == (height, width):
        return frames[:count]
    scaled = (ImageOps.fit(Image.fromarray(frame), (width, height), Image.Resampling.BOX) for frame in frames[:count])
    return np.stack([np.asarray(frame) for frame in scaled])
