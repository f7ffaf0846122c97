"""HunyuanVideo (dual-stream, then parallel single-stream blocks, text last) and HunyuanVideo 1.5 (dual-stream only)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cos_interp.interp.families import decoding, register
from cos_interp.interp.families.adapter import PICTURE_HIDDEN, Adapter, Site, Stack
from cos_interp.interp.families.shapes import joint_block, parallel_block

DUAL = joint_block(attn="attn", text="last")
EMBED = Site("hook_embed", "tokens", "x_embedder", "output")


@register
class HunyuanVideo(Adapter):
    family = "HunyuanVideo"
    classes = ("HunyuanVideoTransformer3DModel",)
    stacks = (Stack("transformer_blocks", DUAL), Stack("single_transformer_blocks", parallel_block()))
    ends = (Site("hook_time_emb", "vector", "time_text_embed", "output", item=0), EMBED)

    def given(self, config: Any, latents: Tensor, prepared: tuple[Any, ...]) -> Tensor:
        """Where the first frame's tokens are replaced by the image's, its latent stays what it is."""
        return prepared[1] if config.image_condition_type == "token_replace" else latents

    def unlike_video(self, config: Any) -> str | None:
        return PICTURE_HIDDEN if getattr(config, "image_condition_type", None) == "latent_concat" else None

    def decode(self, pipe: Any, latents: Tensor) -> Tensor:
        """By the scaling factor; image conditioning by channels has a first latent frame that is not shown."""
        pixels = decoding.by_scaling_factor(pipe, latents)
        return pixels[:, :, 4:] if self.unlike_video(self.expert(pipe).config) else pixels


@register
class HunyuanVideo15(Adapter):
    family = "HunyuanVideo 1.5"
    classes = ("HunyuanVideo15Transformer3DModel",)
    stacks = (Stack("transformer_blocks", DUAL),)
    ends = (Site("hook_time_emb", "vector", "time_embed", "output"), EMBED)
    recalls = ("prepare_cond_latents_and_mask",)
    apart = ("",)

    def decode(self, pipe: Any, latents: Tensor) -> Tensor:
        """One video after the other: the mask of its autoencoder's attention is of one (diffusers 0.42)."""
        return torch.cat([decoding.by_scaling_factor(pipe, one) for one in latents.split(1)])
