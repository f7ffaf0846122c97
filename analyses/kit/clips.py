"""Clips of the user's, in the size and length that a model makes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.own_size import own_size
from cos_interp.tasks.timing import odd, rate_of
from cos_interp.tasks.video import played_at, read_timed


class Film(NamedTuple):
    """A clip as a model is given it, uint8 ``[pixel frame, height, width, 3]``, and what was taken of the file, in words."""

    frames: np.ndarray
    taken: str


def clip_of(model: HookedVideoPipeline, path: Path) -> Film:
    """The clip of a file in the model's own size and length.

    Larger or smaller pictures are scaled, what sticks out at two sides is cut; of a longer clip the first frames are taken, as
    they come: nothing is resampled, and another frame rate than the model's is said. InterpError for a file that is no video, a
    clip that is too short, and one whose rate varies, so that no speed of the model's is its own.
    """
    try:
        frames, times = read_timed(path)
    except ValueError as error:
        raise InterpError(str(error)) from error
    made = fitted(frames, model, str(path))
    times = None if times is None else times[: len(made)]
    if why := odd(times, None):
        raise InterpError(f"{path}: {why}: give a clip of one rate (ffmpeg -i {path.name} -vf fps=16 steady.mp4)")
    size = f"{len(made)} of {len(frames)} frames, {_size(frames)}" + (f" as {_size(made)}" if made.shape != frames.shape else "")
    return Film(made, f"{size}; {speed(rate_of(times), model.frame_rate, len(made))}")


def _size(frames: np.ndarray) -> str:
    return f"{frames.shape[2]} x {frames.shape[1]}"


def speed(rate: float | None, own: float | None, frames: int) -> str:
    """What a clip's frame rate means to a model whose videos of so many frames have ``own`` frames a second, in words. A short
    video is shown more slowly than it is (:func:`~cos_interp.tasks.video.played_at`): at that rate it is the model's, too.

    >>> speed(30.0, 15.0, 81), speed(4.0, 16.0, 9)
    ("30 frames a second, the model's 15: what moves is given at 0.5 of its speed", '4 frames a second')
    >>> speed(None, 16.0, 81)
    'the file names no frame rate'
    """
    if rate is None:
        return "the file names no frame rate"
    said = f"{rate:.4g} frames a second"
    if own is None or min(abs(rate / known - 1) for known in (own, played_at(frames, own))) < 0.01:
        return said
    return f"{said}, the model's {own:.4g}: what moves is given at {own / rate:.2g} of its speed"


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
