"""CogVideoX (text, image and video to video) and ConsisID, its identity-preserving relative: joint attention, text first."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cos_interp.interp.families import register
from cos_interp.interp.families.adapter import Adapter, Site, Stack
from cos_interp.interp.families.layouts import FRAMES_FIRST
from cos_interp.interp.families.shapes import joint_block
from cos_interp.interp.families.sites import Transformer


@register
class CogVideoX(Adapter):
    family = "CogVideoX"
    classes = ("CogVideoXTransformer3DModel",)
    stacks = (Stack("transformer_blocks", joint_block(text="first", text_mlp=None)),)
    ends = (
        Site("hook_time_emb", "vector", "time_embedding", "output"),
        Site("hook_embed_text", "text", "patch_embed", "output", part="before"),
        Site("hook_embed", "tokens", "patch_embed", "output", part="trail"),
    )
    layout = FRAMES_FIRST
    recalls = ("prepare_control_latents",)
    apart = ("CogVideoXFunControl", "CogVideoXVideoToVideo")

    def decode(self, pipe: Any, latents: Tensor) -> Tensor:
        """As the pipeline, which takes frames before channels."""
        return pipe.decode_latents(latents.to(pipe.vae.dtype).permute(0, 2, 1, 3, 4))


@register
class ConsisID(CogVideoX):
    family = "ConsisID"
    classes = ("ConsisIDTransformer3DModel",)

    def breaks(self, transformer: Transformer) -> set[int]:
        """The face's cross-attention is added after some blocks."""
        if not transformer.config.is_train_face:
            return set()
        return {layer + 1 for layer in range(0, len(transformer.transformer_blocks), transformer.config.cross_attn_interval)}
