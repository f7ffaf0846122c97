"""HunyuanVideo (dual-stream, then parallel single-stream blocks, text last) and HunyuanVideo 1.5 (dual-stream only)."""

from __future__ import annotations

from interp.families import decoding, register
from interp.families.adapter import Adapter, Site, Stack
from interp.families.shapes import joint_block, parallel_block

DUAL = joint_block(attn="attn", text="last")
EMBED = Site("hook_embed", "tokens", "x_embedder", "output")

HUNYUAN = register(
    Adapter(
        "HunyuanVideo",
        ("HunyuanVideoTransformer3DModel",),
        (Stack("transformer_blocks", DUAL), Stack("single_transformer_blocks", parallel_block())),
        (Site("hook_time_emb", "vector", "time_text_embed", "output", item=0), EMBED),
        decode=decoding.by_scaling_factor,
    )
)
HUNYUAN15 = register(
    Adapter(
        "HunyuanVideo 1.5",
        ("HunyuanVideo15Transformer3DModel",),
        (Stack("transformer_blocks", DUAL),),
        (Site("hook_time_emb", "vector", "time_embed", "output"), EMBED),
        decode=decoding.by_scaling_factor,
    )
)
