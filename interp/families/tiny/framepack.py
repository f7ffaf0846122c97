"""A tiny pipeline of FramePack."""

from __future__ import annotations

from typing import Any

import torch

from cos_interp.interp.families.tiny import text
from cos_interp.interp.families.tiny.hunyuan import HUNYUAN, LLAMA, TRUE, hunyuan_vae
from cos_interp.interp.families.tiny.record import Tiny, new, picture
from cos_interp.interp.families.tiny.wan import flow


def framepack() -> Any:
    """HunyuanVideo's blocks, with the frames so far as further tokens before the video's."""
    from diffusers import HunyuanVideoFramepackPipeline

    encoder, processor = text.siglip_image()
    torch.manual_seed(0)
    config = HUNYUAN | {"has_image_proj": True, "image_proj_dim": text.WIDTH, "has_clean_x_embedder": True}
    return HunyuanVideoFramepackPipeline(
        text_encoder=text.llama(),
        tokenizer=text.tokenizer(start=True),
        transformer=new("HunyuanVideoFramepackTransformer3DModel", **config).eval(),
        vae=hunyuan_vae(),
        scheduler=flow(),
        text_encoder_2=text.clip_text(),
        tokenizer_2=text.tokenizer(start=True),
        image_encoder=encoder,
        feature_extractor=processor,
    )


TINY = {"framepack": Tiny(framepack, LLAMA | {"latent_window_size": 3}, picture, TRUE)}
