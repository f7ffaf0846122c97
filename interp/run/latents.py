"""The latents of a run in one layout, whatever the pipeline packs, and whichever frames it hides from its scheduler."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cos_interp.interp.families.layouts import Dims, Layout


@dataclass(frozen=True)
class LatentView:
    """Between the pipeline's latents and canonical ones, ``[batch, channel, frame, row, col]``.

    ``given``: canonical latents whose first frames stay as they are where the scheduler sees only the later ones. ``fixed``: how
    many of them stay although it sees and moves them, since the pipeline puts them in again before each call.
    """

    layout: Layout
    dims: Dims
    given: Tensor
    fixed: int = 0

    def canonical(self, latents: Tensor) -> Tensor:
        """The frames that these latents have."""
        return canonical(latents, self.layout, self.dims)

    def whole(self, latents: Tensor) -> Tensor:
        """All frames: given ones stand before those that the scheduler sees."""
        return self._filled(self.canonical(latents), self.given)

    def whole_prediction(self, prediction: Tensor) -> Tensor:
        """All frames of a prediction, which moves nothing in the given ones."""
        return self._filled(self.canonical(prediction), None)

    def changing(self, latents: Tensor, like: Tensor) -> Tensor:
        """The inverse of :meth:`whole`: only the frames that the scheduler sees, in the layout of ``like``."""
        seen = self.canonical(like).shape[2]
        return native(latents[:, :, latents.shape[2] - seen :], like, self.layout)

    def _filled(self, latents: Tensor, fill: Tensor | None) -> Tensor:
        seen = latents.shape[2]
        missing = max(self.dims[0] - seen, self.fixed)
        if missing == 0:
            return latents
        batch, channels = latents.shape[:2]
        first = latents.new_zeros(batch, channels, missing, *latents.shape[3:]) if fill is None else fill[:, :channels, :missing]
        return torch.cat([first.to(latents), latents[:, :, seen + missing - self.dims[0] :]], dim=2)


def canonical(latents: Tensor, layout: Layout, dims: Dims) -> Tensor:
    """Latents as ``[batch, channel, frame, row, col]``; pipelines that pack them unpack for the scheduler at times."""
    return latents if layout.packed and latents.ndim == 5 else layout.to_canonical(latents, dims)


def native(latents: Tensor, like: Tensor, layout: Layout) -> Tensor:
    """The inverse of :func:`canonical`, in the layout of ``like``."""
    return latents if layout.packed and like.ndim == 5 else layout.from_canonical(latents)
