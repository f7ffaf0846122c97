"""A tiny pipeline of Latte."""

from __future__ import annotations

from typing import Any

import torch

from cos_interp.interp.families.tiny import text
from cos_interp.interp.families.tiny.record import Tiny, new


def latte() -> Any:
    from diffusers import DDIMScheduler, LattePipeline

    torch.manual_seed(0)
    transformer = new(
        "LatteTransformer3DModel",
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=text.WIDTH,
        in_channels=4,
        cross_attention_dim=16,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        video_length=3,
    )
    vae = new(
        "AutoencoderKL",
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=2,
    )
    scheduler = DDIMScheduler(clip_sample=False)
    return LattePipeline(
        tokenizer=text.tokenizer(), text_encoder=text.t5(), vae=vae, transformer=transformer.eval(), scheduler=scheduler
    )


TINY = {"latte": Tiny(latte, {"video_length": 3}, frames=None)}
