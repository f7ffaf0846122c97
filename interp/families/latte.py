"""Latte: factorised. Spatial blocks (even layers) attend within a frame, temporal blocks (odd layers) across frames."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cos_interp.interp.families import register
from cos_interp.interp.families.adapter import Adapter, Site, Stack
from cos_interp.interp.families.shapes import cross_block
from cos_interp.interp.families.sites import Transformer

SPATIAL = cross_block(mid="hidden_states_0", mid2="hidden_states_3", fold="spatial")
TEMPORAL = cross_block(cross=None, mid="hidden_states_0", fold="temporal")


@register
class Latte(Adapter):
    family = "Latte"
    classes = ("LatteTransformer3DModel",)
    stacks = (Stack("transformer_blocks", SPATIAL), Stack("temporal_transformer_blocks", TEMPORAL))
    ends = (
        Site("hook_embed", "tokens", "pos_embed", "output", fold="spatial"),
        Site("hook_time_emb", "vector", "adaln_single", "output", item=1),
    )
    interleaved = True
    notes = "keys of a pattern: the tokens of the frame (even layers) or the frames of the position (odd layers)"
    apart = ("Latte",)

    def breaks(self, transformer: Transformer) -> set[int]:
        """The first temporal block: the position of the frames is added before it."""
        return {1}

    def decode(self, pipe: Any, latents: Tensor) -> Tensor:
        """Frame by frame with the image VAE, as the pipeline does."""
        return pipe.decode_latents(latents.to(pipe.vae.dtype), latents.shape[2], decode_chunk_size=14)
