"""A tiny pipeline of Allegro."""

from __future__ import annotations

from typing import Any

import torch

from cos_interp.interp.families.tiny import text
from cos_interp.interp.families.tiny.record import SHORT, Tiny, new


def allegro() -> Any:
    from diffusers import AllegroPipeline, EulerAncestralDiscreteScheduler

    torch.manual_seed(0)
    transformer = new(
        "AllegroTransformer3DModel",
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        cross_attention_dim=24,
        sample_width=8,
        sample_height=8,
        sample_frames=8,
        caption_channels=text.WIDTH,
    )
    vae = new(
        "AutoencoderKLAllegro",
        in_channels=3,
        out_channels=3,
        down_block_types=("AllegroDownBlock3D",) * 4,
        up_block_types=("AllegroUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    vae.enable_tiling()
    scheduler = EulerAncestralDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    return AllegroPipeline(
        tokenizer=text.tokenizer(), text_encoder=text.t5(), vae=vae, transformer=transformer.eval(), scheduler=scheduler
    )


TINY = {"allegro": Tiny(allegro, SHORT)}
