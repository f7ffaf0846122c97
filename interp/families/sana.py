"""Sana-Video: linear self-attention (no pattern, and no q, k, v that a softmax would see) and a convolutional MLP."""

from __future__ import annotations

from cos_interp.interp.families import decoding, register
from cos_interp.interp.families.adapter import Adapter, Site, Stack
from cos_interp.interp.families.shapes import cross_block

SANA = register(
    Adapter(
        "Sana-Video",
        ("SanaVideoTransformer3DModel",),
        (Stack("transformer_blocks", cross_block(linear=True, mlp_kind="grid")),),
        (
            Site("hook_embed", "embed", "patch_embedding", "output"),
            Site("hook_time_emb", "vector", "time_embed", "output", item=1),
        ),
        decode=decoding.by_statistics,
        notes="linear attention: attn.hook_z only, as [.., d_model]; no pattern exists",
    )
)
