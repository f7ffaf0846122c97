"""Tiny pipelines of Sana-Video, text and image to video."""

from __future__ import annotations

from typing import Any

import torch

from cos_interp.interp.families.tiny import text
from cos_interp.interp.families.tiny.record import SHORT, Tiny, new, picture
from cos_interp.interp.families.tiny.wan import flow
from cos_interp.interp.families.tiny.wan import vae as wan_vae


def _sana_transformer() -> Any:
    torch.manual_seed(0)
    return new(
        "SanaVideoTransformer3DModel",
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=3,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=text.WIDTH,
        mlp_ratio=2.0,
        sample_size=4,
        patch_size=(1, 2, 2),
        rope_max_seq_len=32,
    ).eval()


def sana() -> Any:
    from diffusers import DPMSolverMultistepScheduler, SanaVideoPipeline

    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0)
    return SanaVideoPipeline(
        tokenizer=text.tokenizer(start=True),
        text_encoder=text.gemma(),
        vae=wan_vae(),
        transformer=_sana_transformer(),
        scheduler=scheduler,
    )


def sana_image() -> Any:
    from diffusers import SanaImageToVideoPipeline

    return SanaImageToVideoPipeline(
        tokenizer=text.tokenizer(start=True),
        text_encoder=text.gemma(),
        vae=wan_vae(),
        transformer=_sana_transformer(),
        scheduler=flow(),
    )


KEYWORDS = SHORT | {"use_resolution_binning": False, "complex_human_instruction": []}
TINY = {
    "sana-video": Tiny(sana, KEYWORDS, frames="frames"),
    "sana-video-i2v": Tiny(sana_image, KEYWORDS, picture, frames="frames"),
}
