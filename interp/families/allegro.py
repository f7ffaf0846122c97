"""Allegro: cross-attention blocks, frames embedded one by one, epsilon prediction with an ancestral Euler scheduler."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cos_interp.interp.families import register
from cos_interp.interp.families.adapter import Adapter, Site, Stack
from cos_interp.interp.families.shapes import cross_block


def decode(pipe: Any, latents: Tensor) -> Tensor:
    """As the pipeline, without its crop to the asked size."""
    return pipe.decode_latents(latents.to(pipe.vae.dtype))


ALLEGRO = register(
    Adapter(
        "Allegro",
        ("AllegroTransformer3DModel",),
        (Stack("transformer_blocks", cross_block(mid="hidden_states_0", mid2="hidden_states_2")),),
        (
            Site("hook_time_emb", "vector", "adaln_single", "output", item=1),
            Site("hook_embed", "tokens", "pos_embed", "output", fold="spatial"),
        ),
        decode=decode,
        notes="decoded videos keep the frames that the pipeline crops",
    )
)
