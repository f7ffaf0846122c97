"""Allegro: cross-attention blocks, frames embedded one by one, epsilon prediction with an ancestral Euler scheduler."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cos_interp.interp.families import register
from cos_interp.interp.families.adapter import Adapter, Site, Stack
from cos_interp.interp.families.shapes import cross_block


@register
class Allegro(Adapter):
    family = "Allegro"
    classes = ("AllegroTransformer3DModel",)
    stacks = (Stack("transformer_blocks", cross_block(mid="hidden_states_0", mid2="hidden_states_2")),)
    ends = (
        Site("hook_time_emb", "vector", "adaln_single", "output", item=1),
        Site("hook_embed", "tokens", "pos_embed", "output", fold="spatial"),
    )
    notes = "decoded videos keep the frames that the pipeline crops"

    def decode(self, pipe: Any, latents: Tensor) -> Tensor:
        """As the pipeline, without its crop to the asked size."""
        return pipe.decode_latents(latents.to(pipe.vae.dtype))
