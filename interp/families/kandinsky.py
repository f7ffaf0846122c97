"""Kandinsky 5: cross-attention blocks with gated text attention; channels last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cos_interp.interp.families import decoding, register
from cos_interp.interp.families.adapter import Adapter, Site, Stack
from cos_interp.interp.families.layouts import CHANNELS_LAST
from cos_interp.interp.families.shapes import cross_block

BLOCK = cross_block("self_attention", "cross_attention", "feed_forward", "visual_embed_0", "visual_embed_1")


SPARSE = "sparse (NABLA) attention reorders the tokens"


@register
class Kandinsky5(Adapter):
    family = "Kandinsky 5"
    classes = ("Kandinsky5Transformer3DModel",)
    stacks = (Stack("visual_transformer_blocks", BLOCK),)
    ends = (
        Site("hook_time_emb", "vector", "time_embeddings", "output"),
        Site("hook_embed", "grid", "visual_embeddings", "output"),
    )
    layout = CHANNELS_LAST
    output_item = None
    unbatched = ("text_rope_pos", "visual_rope_pos")
    notes = f"attention_type regular only: {SPARSE}"

    def refuses(self, config: Any) -> str | None:
        return None if config.attention_type == "regular" else SPARSE

    def one_video(self, pipe: Any, call: Mapping[str, Any]) -> bool:
        """Image-to-video scales the first frames of every video by statistics over the whole batch."""
        return hasattr(pipe, "normalize_first_frame")

    def channels(self, config: Any, prepared: int) -> int:
        return config.out_visual_dim

    def decode(self, pipe: Any, latents: Tensor) -> Tensor:
        return decoding.by_scaling_factor(pipe, latents)
