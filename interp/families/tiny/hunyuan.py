"""Tiny pipelines of HunyuanVideo and HunyuanVideo 1.5, text and image to video."""

from __future__ import annotations

from typing import Any

import torch

from cos_interp.interp.families.tiny import text
from cos_interp.interp.families.tiny.record import BY_GUIDER, NEGATIVE, SHORT, Keywords, Tiny, new, picture
from cos_interp.interp.families.tiny.wan import flow


def hunyuan_vae() -> Any:
    torch.manual_seed(1)
    return new(
        "AutoencoderKLHunyuanVideo",
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        act_fn="silu",
        norm_num_groups=4,
        scaling_factor=0.476986,
        spatial_compression_ratio=8,
        temporal_compression_ratio=4,
        mid_block_add_attention=True,
    )


HUNYUAN = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 10,
    "num_layers": 2,
    "num_single_layers": 2,
    "num_refiner_layers": 1,
    "patch_size": 2,
    "patch_size_t": 1,
    "guidance_embeds": True,
    "text_embed_dim": text.WIDTH,
    "pooled_projection_dim": 8,
    "rope_axes_dim": (2, 4, 4),
}


def hunyuan(name: str = "HunyuanVideoPipeline", **overrides: Any) -> Any:
    torch.manual_seed(0)
    return new(
        name,
        text_encoder=text.llama(),
        tokenizer=text.tokenizer(start=True),
        transformer=new("HunyuanVideoTransformer3DModel", **HUNYUAN | overrides).eval(),
        vae=hunyuan_vae(),
        scheduler=flow(),
        text_encoder_2=text.clip_text(),
        tokenizer_2=text.tokenizer(start=True),
    )


def hunyuan_skyreels() -> Any:
    """The first frame comes as further channels."""
    return hunyuan("HunyuanSkyreelsImageToVideoPipeline", in_channels=8)


def _hunyuan_image(kind: str, channels: int) -> Any:
    from diffusers import HunyuanVideoImageToVideoPipeline

    torch.manual_seed(0)
    config = HUNYUAN | {"image_condition_type": kind, "in_channels": channels, "guidance_embeds": kind == "token_replace"}
    return HunyuanVideoImageToVideoPipeline(
        text_encoder=None,
        tokenizer=None,
        transformer=new("HunyuanVideoTransformer3DModel", **config).eval(),
        vae=hunyuan_vae(),
        scheduler=flow(),
        text_encoder_2=None,
        tokenizer_2=None,
        image_processor=None,
    )


def hunyuan_image() -> Any:
    """The first frame replaces the tokens of the first latent frame. Takes prompt embeddings: its LLaVA has no tiny form."""
    return _hunyuan_image("token_replace", 4)


def hunyuan_image_concat() -> Any:
    """The first frame comes as further channels."""
    return _hunyuan_image("latent_concat", 9)


def hunyuan_embeddings(guided: bool) -> Keywords:
    """Prompt embeddings, pooled ones and masks, as the text encoders would give."""
    draw = torch.Generator().manual_seed(3)
    kinds = ("", "negative_") if guided else ("",)
    made: Keywords = {}
    for kind in kinds:
        made[f"{kind}prompt_embeds"] = torch.randn(1, 12, text.WIDTH, generator=draw)
        made[f"{kind}pooled_prompt_embeds"] = torch.randn(1, 8, generator=draw)
        made[f"{kind}prompt_attention_mask"] = (torch.arange(12) < 9).long()[None]
    return made


def hunyuan15(name: str = "HunyuanVideo15Pipeline", task: str = "t2v", **parts: Any) -> Any:
    torch.manual_seed(0)
    transformer = new(
        "HunyuanVideo15Transformer3DModel",
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=3,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        patch_size=1,
        patch_size_t=1,
        text_embed_dim=text.WIDTH,
        text_embed_2_dim=text.WIDTH,
        image_embed_dim=text.WIDTH,
        rope_axes_dim=(2, 6, 8),
        target_size=16,
        task_type=task,
    )
    vae = new(
        "AutoencoderKLHunyuanVideo15",
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(16, 16),
        layers_per_block=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
        downsample_match_channel=False,
        upsample_match_channel=False,
    )
    pipe = new(
        name,
        text_encoder=text.qwen(),
        tokenizer=text.tokenizer(),
        transformer=transformer.eval(),
        vae=vae,
        scheduler=flow(),
        text_encoder_2=text.t5(),
        tokenizer_2=text.tokenizer(),
        guider=new("ClassifierFreeGuidance", guidance_scale=3.0),
        **parts,
    )
    pipe.system_message, pipe.prompt_template_encode_start_idx = "", 2  # the two roles of the chat
    pipe.tokenizer_max_length, pipe.tokenizer_2_max_length = 12, 6
    pipe.vision_num_semantic_tokens = 4
    return pipe


def hunyuan15_image() -> Any:
    encoder, processor = text.siglip_image()
    parts = {"image_encoder": encoder, "feature_extractor": processor}
    return hunyuan15("HunyuanVideo15ImageToVideoPipeline", "i2v", **parts)


LLAMA = SHORT | {"prompt_template": {"template": "{}", "crop_start": 0}}
_EMBEDDED = {"guidance_scale": 2.0}  # an input of the transformer, not classifier-free guidance
_TRUE = _EMBEDDED | {"true_cfg_scale": 3.0}
TRUE = (_TRUE | {"negative_prompt": NEGATIVE}, _EMBEDDED)
TRUE_EMBEDDINGS = (_TRUE, _EMBEDDED)
TINY = {
    "hunyuan": Tiny(hunyuan, LLAMA, guidance=TRUE),
    "hunyuan-i2v": Tiny(hunyuan_image, {}, picture, TRUE_EMBEDDINGS, embeddings=hunyuan_embeddings),
    "hunyuan-i2v-concat": Tiny(hunyuan_image_concat, {}, picture, TRUE_EMBEDDINGS, embeddings=hunyuan_embeddings),
    "hunyuan-skyreels-i2v": Tiny(hunyuan_skyreels, LLAMA, picture, TRUE),
    "hunyuan1.5": Tiny(hunyuan15, guidance=BY_GUIDER),
    "hunyuan1.5-i2v": Tiny(hunyuan15_image, {}, picture, BY_GUIDER, sized=False),
}
