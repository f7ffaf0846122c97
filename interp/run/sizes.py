"""Whether the video that a pipeline prepares is the one that was asked for: some round what they are told, without an error."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cos_interp.interp.errors import InterpError
from cos_interp.interp.families.layouts import Dims

SIZES = ("num_frames", "height", "width")


def check_sizes(pipe: Any, asked: Mapping[str, Any], prepared: Mapping[str, Any], dims: Dims) -> None:
    """A warning for a size that the pipeline has rounded, an InterpError where the caller's own latents have another one.

    ``asked``: the keywords of the call; ``prepared``: the arguments of ``prepare_latents``; ``dims``: latent frames, rows and
    columns.
    """
    name, made = type(pipe).__name__, _made(pipe, asked, prepared, dims)
    wrong = {key: size for key, size in made.items() if asked.get(key) not in (None, size)}
    if not wrong:
        return
    said = ", ".join(f"{key}={asked[key]}" for key in wrong)
    instead = ", ".join(f"{key}={size}" for key, size in wrong.items())
    if isinstance(asked.get("latents"), Tensor):
        raise InterpError(f"{said}, and the latents that were given are those of {instead}: make them agree")
    warnings.warn(f"{said}: {name} makes {instead}", stacklevel=2)


def _made(pipe: Any, asked: Mapping[str, Any], prepared: Mapping[str, Any], dims: Dims) -> dict[str, int]:
    """The sizes in pixels as far as they can be told before anything is decoded."""
    made = {key: size for key in SIZES if isinstance(size := prepared.get(key), int)}
    by_frame, by_cell = (getattr(pipe, f"vae_scale_factor_{axis}", None) for axis in ("temporal", "spatial"))
    frames = asked.get("num_frames")
    given = isinstance(asked.get("latents"), Tensor)
    if by_frame and isinstance(frames, int):
        whole = (dims[0] - 1) * by_frame + 1  # of a causal autoencoder, whose first latent frame is one picture
        if given or 0 < frames - whole < by_frame:
            made["num_frames"] = whole
    if by_cell and given:
        made |= {key: cells * by_cell for key, cells in zip(SIZES[1:], dims[1:], strict=True)}
    return made
