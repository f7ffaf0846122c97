"""EasyAnimate 5.1: joint attention with text first, two streams."""

from __future__ import annotations

from interp.families import decoding, register
from interp.families.adapter import Adapter, Site, Stack
from interp.families.shapes import joint_block

EASYANIMATE = register(
    Adapter(
        "EasyAnimate",
        ("EasyAnimateTransformer3DModel",),
        (Stack("transformer_blocks", joint_block(text="first", text_mlp="txt_ff")),),
        (
            Site("hook_time_emb", "vector", "time_embedding", "output"),
            Site("hook_embed", "frame_embed", "proj", "output", fold="spatial"),
        ),
        patch=lambda config: (1, config.patch_size, config.patch_size),
        recalls=("prepare_mask_latents", "prepare_control_latents"),
        decode=decoding.by_scaling_factor,
    )
)
