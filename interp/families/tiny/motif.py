"""Tiny pipelines of Motif-Video, text and image to video."""

from __future__ import annotations

from typing import Any

import torch

from cos_interp.interp.families.tiny import text
from cos_interp.interp.families.tiny.record import BY_GUIDER, SHORT, Tiny, new, picture
from cos_interp.interp.families.tiny.wan import flow
from cos_interp.interp.families.tiny.wan import vae as wan_vae


def motif(name: str = "MotifVideoPipeline", image: int | None = None, **parts: Any) -> Any:
    torch.manual_seed(0)
    transformer = new(
        "MotifVideoTransformer3DModel",
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        num_single_layers=3,
        num_decoder_layers=1,
        mlp_ratio=2.0,
        patch_size=2,
        patch_size_t=1,
        text_embed_dim=text.WIDTH,
        image_embed_dim=image,
        rope_axes_dim=(4, 4, 4),
    )
    return new(
        name,
        transformer=transformer.eval(),
        vae=wan_vae(),
        scheduler=flow(),
        tokenizer=text.tokenizer(),
        guider=new("ClassifierFreeGuidance", guidance_scale=3.0),
        **{"text_encoder": text.t5()} | parts,
    )


def motif_image() -> Any:
    """The first frame comes as further channels, and as tokens before the text's."""
    encoder = text.t5()
    encoder.vision_tower, processor = text.siglip_image()  # as in the T5Gemma2 encoder of the released model
    return motif("MotifVideoImage2VideoPipeline", text.WIDTH, text_encoder=encoder, feature_extractor=processor)


TINY = {
    "motif": Tiny(motif, SHORT, guidance=BY_GUIDER),
    "motif-i2v": Tiny(motif_image, SHORT, picture, BY_GUIDER),
}
