"""Tiny pipelines of Kandinsky 5, text and image to video."""

from __future__ import annotations

from typing import Any

import torch

from cos_interp.interp.families.tiny import text
from cos_interp.interp.families.tiny.hunyuan import hunyuan_vae
from cos_interp.interp.families.tiny.record import Keywords, Tiny, new, picture
from cos_interp.interp.families.tiny.wan import flow


def _kandinsky(name: str, conditioned: bool) -> Any:
    torch.manual_seed(0)
    transformer = new(
        "Kandinsky5Transformer3DModel",
        in_visual_dim=4,
        in_text_dim=text.WIDTH,
        in_text_dim2=8,
        time_dim=16,
        out_visual_dim=4,
        patch_size=(1, 2, 2),
        model_dim=24,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=3,
        axes_dims=(4, 4, 4),
        visual_cond=conditioned,
        attention_type="regular",
    )
    for key, weight in transformer.named_parameters():
        if "modulation" in key:  # zero in a fresh model, which closes every gate
            torch.nn.init.normal_(weight, std=0.3)
    return new(
        name,
        transformer=transformer.eval(),
        vae=hunyuan_vae(),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        scheduler=flow(),
    )


def kandinsky() -> Any:
    """Takes prompt embeddings: its Qwen2.5-VL processor has no tiny form."""
    return _kandinsky("Kandinsky5T2VPipeline", False)


def kandinsky_image() -> Any:
    return _kandinsky("Kandinsky5I2VPipeline", True)


def kandinsky_embeddings(guided: bool) -> Keywords:
    """Prompt embeddings of both encoders and their lengths, as the text encoders would give."""
    draw = torch.Generator().manual_seed(3)
    made: Keywords = {}
    for kind in ("", "negative_") if guided else ("",):
        made[f"{kind}prompt_embeds_qwen"] = torch.randn(1, 7, text.WIDTH, generator=draw)
        made[f"{kind}prompt_embeds_clip"] = torch.randn(1, 8, generator=draw)
        made[f"{kind}prompt_cu_seqlens"] = torch.tensor([0, 7], dtype=torch.int32)
    return made


GUIDANCE = ({"guidance_scale": 3.0}, {"guidance_scale": 1.0})
TINY = {
    "kandinsky5": Tiny(kandinsky, {}, guidance=GUIDANCE, embeddings=kandinsky_embeddings),
    "kandinsky5-i2v": Tiny(kandinsky_image, {"num_frames": 25}, picture, GUIDANCE, embeddings=kandinsky_embeddings),
}
