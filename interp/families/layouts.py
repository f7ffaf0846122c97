"""Where batch, channel, frame, row and column lie in the latents of a pipeline and the outputs of its transformer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor

from cos_interp.interp.errors import InterpError

Dims = tuple[int, int, int]  # latent frames, rows, columns
_CANONICAL = "BCFHW"


def sizes_of(latents: Tensor) -> Dims:
    """Latent frames, rows and columns of ``[batch, channel, frame, row, col]``."""
    frames, rows, cols = latents.shape[2:]
    return frames, rows, cols


@dataclass(frozen=True)
class Layout:
    """Axes in order, like ``BFCHW``; ``BSC`` has the positions packed into one axis in the order frame, row, column."""

    axes: str

    @property
    def packed(self) -> bool:
        return "S" in self.axes

    def to_canonical(self, value: Tensor, dims: Dims | None = None) -> Tensor:
        """As ``[batch, channel, frame, row, col]`` (a view); ``dims`` is needed for packed latents only.

        Raises InterpError for packed latents with other tokens than those of a video of these ``dims``.
        """
        if self.packed:
            assert dims is not None, "packed latents need dims"
            if value.shape[1] != prod(dims):
                raise InterpError(
                    f"the pipeline packs {value.shape[1]} tokens, a video of {' x '.join(map(str, dims))} latent cells has "
                    f"{prod(dims)}: tokens of conditions appended to the video's cannot be followed (the first frame needs "
                    "none), and latents of your own must have the size that height, width and num_frames say"
                )
            return value.unflatten(1, dims).movedim(-1, 1)
        return value.permute([self.axes.index(a) for a in _CANONICAL])

    def from_canonical(self, value: Tensor) -> Tensor:
        """The inverse of :meth:`to_canonical`."""
        if self.packed:
            return value.movedim(1, -1).flatten(1, 3)
        return value.permute([_CANONICAL.index(a) for a in self.axes])

    def dims(self, call: Mapping[str, Any]) -> Dims:
        """Latent frames, rows and columns from the arguments of a transformer call."""
        if self.packed:
            frames, height, width = (call.get(n) for n in ("num_frames", "height", "width"))
            if frames is None or height is None or width is None:
                raise InterpError(
                    "the layout is PACKED and the transformer was called without num_frames, height and width (of the latents): "
                    "pass them, or give the adapter another layout"
                )
            return frames, height, width
        return sizes_of(self.to_canonical(call["hidden_states"]))

    def prepared_dims(self, latents: Tensor, arguments: Mapping[str, Any], pipe: Any) -> Dims:
        """The same from what ``prepare_latents`` was given and returned."""
        if not self.packed:
            return sizes_of(self.to_canonical(latents))
        needed = ("vae_temporal_compression_ratio", "vae_spatial_compression_ratio")
        if missing := [n for n in needed if not hasattr(pipe, n)] + [
            n for n in ("num_frames", "height", "width") if n not in arguments
        ]:
            raise InterpError(
                f"the layout is PACKED and {type(pipe).__name__} has no {missing[0]} (of the pipeline: {', '.join(needed)}; of "
                "prepare_latents: num_frames, height, width in pixels): add it, or give the adapter another layout"
            )
        by_frame, by_pixel = pipe.vae_temporal_compression_ratio, pipe.vae_spatial_compression_ratio
        frames = (arguments["num_frames"] - 1) // by_frame + 1
        return frames, arguments["height"] // by_pixel, arguments["width"] // by_pixel


VIDEO = Layout("BCFHW")
FRAMES_FIRST = Layout("BFCHW")
CHANNELS_LAST = Layout("BFHWC")
PACKED = Layout("BSC")
