"""A tiny pipeline of Mochi."""

from __future__ import annotations

from typing import Any

import torch

from cos_interp.interp.families.tiny import text
from cos_interp.interp.families.tiny.record import SHORT, Tiny, new


def mochi() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, MochiPipeline

    torch.manual_seed(0)
    transformer = new(
        "MochiTransformer3DModel",
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=3,
        pooled_projection_dim=16,
        in_channels=12,
        qk_norm="rms_norm",
        text_embed_dim=text.WIDTH,
        time_embed_dim=4,
        max_sequence_length=12,
    )
    vae = new(
        "AutoencoderKLMochi",
        latent_channels=12,
        out_channels=3,
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1,) * 5,
    )
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    return MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        vae=vae,
        text_encoder=text.t5(),
        tokenizer=text.tokenizer(),
        transformer=transformer.eval(),
    )


TINY = {"mochi": Tiny(mochi, SHORT)}
