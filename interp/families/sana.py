"""Sana-Video: linear self-attention (no pattern, and no q, k, v that a softmax would see) and a convolutional MLP."""

from __future__ import annotations

from cos_interp.interp.families import register
from cos_interp.interp.families.adapter import Adapter, Site, Stack
from cos_interp.interp.families.shapes import cross_block


@register
class SanaVideo(Adapter):
    family = "Sana-Video"
    classes = ("SanaVideoTransformer3DModel",)
    stacks = (Stack("transformer_blocks", cross_block(linear=True, mlp_kind="grid")),)
    ends = (
        Site("hook_embed", "embed", "patch_embedding", "output"),
        Site("hook_time_emb", "vector", "time_embed", "output", item=1),
    )
    notes = "linear attention: attn.hook_z only, as [.., d_model]; no pattern exists"
