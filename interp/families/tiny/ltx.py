"""Tiny pipelines of LTX-Video, text and image to video."""

from __future__ import annotations

from typing import Any

import torch

from cos_interp.interp.families.tiny import text
from cos_interp.interp.families.tiny.record import SHORT, Tiny, new, picture
from cos_interp.interp.families.tiny.wan import flow


def ltx_vae() -> Any:
    torch.manual_seed(1)
    return new(
        "AutoencoderKLLTXVideo",
        in_channels=3,
        out_channels=3,
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )


def _ltx(name: str) -> Any:
    torch.manual_seed(0)
    transformer = new(
        "LTXVideoTransformer3DModel",
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=3,
        caption_channels=text.WIDTH,
    )
    vae = ltx_vae()
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    return new(
        name, scheduler=flow(), vae=vae, text_encoder=text.t5(), tokenizer=text.tokenizer(), transformer=transformer.eval()
    )


def ltx() -> Any:
    return _ltx("LTXPipeline")


def ltx_image() -> Any:
    return _ltx("LTXImageToVideoPipeline")


TINY = {"ltx": Tiny(ltx, SHORT), "ltx-i2v": Tiny(ltx_image, SHORT, picture)}
