"""Kandinsky 5: cross-attention blocks with gated text attention; channels last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cos_interp.interp.families import decoding, register
from cos_interp.interp.families.adapter import Adapter, Site, Stack
from cos_interp.interp.families.layouts import CHANNELS_LAST
from cos_interp.interp.families.shapes import cross_block

BLOCK = cross_block("self_attention", "cross_attention", "feed_forward", "visual_embed_0", "visual_embed_1")


def pools(pipe: Any, call: Mapping[str, Any]) -> bool:
    """Image-to-video scales the first frames of every video by statistics over the whole batch."""
    return hasattr(pipe, "normalize_first_frame")


SPARSE = "sparse (NABLA) attention reorders the tokens"

KANDINSKY5 = register(
    Adapter(
        "Kandinsky 5",
        ("Kandinsky5Transformer3DModel",),
        (Stack("visual_transformer_blocks", BLOCK),),
        (
            Site("hook_time_emb", "vector", "time_embeddings", "output"),
            Site("hook_embed", "grid", "visual_embeddings", "output"),
        ),
        layout=CHANNELS_LAST,
        output_item=None,
        one_video=pools,
        unbatched=("text_rope_pos", "visual_rope_pos"),
        channels=lambda config: config.out_visual_dim,
        refuses=lambda config: None if config.attention_type == "regular" else SPARSE,
        decode=decoding.by_scaling_factor,
        notes=f"attention_type regular only: {SPARSE}",
    )
)
