"""Pictures that a pipeline is given: one form for every family, whatever they were given as, alone or in a list."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from cos_interp.interp.errors import InterpError
from cos_interp.interp.rgb import to_rgb
from cos_interp.interp.scalars import has_numbers

HOW = "give a PIL picture, uint8 [height, width, 3], or its floats in [0, 1]"
CHANNELS = (1, 3, 4)
EXACT = 1e-3  # of one of the 255 steps: a float that is as near to one of them is that one in float32


def as_picture(given: Any, what: str) -> Image.Image | Tensor:
    """A picture as RGB of 8 bits: pipelines read arrays each in its own way, some wrongly without a word.

    An RGB picture stays the object that it is, and so does a tensor of floats, which pipelines take; other modes become RGB as
    :func:`~cos_interp.interp.rgb.to_rgb` says. Arrays are ``[height, width, channel]`` and tensors ``[channel, height, width]``,
    of 1, 3 or 4 channels, uint8, arrays also floats in [0, 1] that are multiples of 1/255; a first axis of one picture may stand
    before. ``what`` names it in errors (``image[1]``). InterpError for anything else.
    """
    try:
        if isinstance(given, Image.Image):
            given.load()
            return given if given.mode == "RGB" else to_rgb(given)
        if has_numbers(given) and given.is_floating_point():
            return given
        if isinstance(given, (np.ndarray, Tensor)):
            return to_rgb(Image.fromarray(_bytes_of(given)))
    except (OSError, ValueError) as error:
        raise InterpError(f"{what}: {error}: {HOW}") from error
    found = f"the text {given!r}" if isinstance(given, str) else f"a {type(given).__name__}"
    raise InterpError(f"{what} is {found}: {HOW}; several are a list, one a video")


def _bytes_of(given: np.ndarray | Tensor) -> np.ndarray:
    """A picture's numbers as uint8 ``[height, width]`` or ``[height, width, 3 or 4]``. ValueError for what is none."""
    shape = list(given.shape)
    if isinstance(given, Tensor):
        if not has_numbers(given):
            raise ValueError(f"a meta or sparse tensor {shape}")
        given = given.detach().cpu().resolve_neg().numpy()
        given = np.moveaxis(given, -3, -1) if given.ndim >= 3 else given
    pixels = given[0] if given.ndim == 4 and len(given) == 1 else given
    if pixels.ndim not in (2, 3) or not pixels.size or (pixels.ndim == 3 and pixels.shape[-1] not in CHANNELS):
        raise ValueError(f"the shape {shape} is none of a picture")
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 and pixels.ndim == 3 else pixels
    if np.issubdtype(pixels.dtype, np.floating):
        return _of_floats(pixels)
    if pixels.dtype != np.uint8:
        raise ValueError(f"numbers of {pixels.dtype}")
    return np.ascontiguousarray(pixels)


def _of_floats(pixels: np.ndarray) -> np.ndarray:
    steps = pixels.astype(np.float64) * 255
    if not (np.isfinite(steps).all() and steps.min() >= 0 and steps.max() <= 255 + EXACT):
        raise ValueError("floats beyond [0, 1]")
    if np.abs(steps - steps.round()).max() > EXACT:
        raise ValueError("floats between the 256 steps of a picture, write np.uint8(np.round(255 * picture))")
    return steps.round().astype(np.uint8)
