"""Tiny pipelines of families whose text and video meet in one attention: CogVideoX, Mochi, HunyuanVideo, EasyAnimate, ..."""

from __future__ import annotations

from typing import Any

import torch

from cos_interp.interp.families.tiny import text
from cos_interp.interp.families.tiny.wan import flow
from cos_interp.interp.families.tiny.wan import vae as wan_vae


def cog_vae() -> Any:
    from diffusers import AutoencoderKLCogVideoX

    torch.manual_seed(1)
    return AutoencoderKLCogVideoX(
        in_channels=3,
        out_channels=3,
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )


COG = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "time_embed_dim": 8,
    "text_embed_dim": text.WIDTH,
    "num_layers": 3,
    "sample_width": 4,
    "sample_height": 4,
    "sample_frames": 9,
    "patch_size": 2,
    "temporal_compression_ratio": 4,
    "max_text_seq_length": 12,
}


def cog(name: str, scheduler: str = "CogVideoXDDIMScheduler", **overrides: Any) -> Any:
    import diffusers

    torch.manual_seed(0)
    transformer = diffusers.CogVideoXTransformer3DModel(**COG | overrides).eval()
    made = getattr(diffusers, scheduler)(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=1.0,
        timestep_spacing="trailing",
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
    )
    return getattr(diffusers, name)(
        tokenizer=text.tokenizer(), text_encoder=text.t5(), vae=cog_vae(), transformer=transformer, scheduler=made
    )


def cogvideox() -> Any:
    """As the 2B model: sinusoidal positions, DDIM."""
    return cog("CogVideoXPipeline")


def cogvideox_5b() -> Any:
    """As the 5B model: rotary positions, the DPM scheduler that draws noise."""
    return cog("CogVideoXPipeline", "CogVideoXDPMScheduler", use_rotary_positional_embeddings=True)


def cogvideox_image() -> Any:
    return cog("CogVideoXImageToVideoPipeline", use_rotary_positional_embeddings=True, in_channels=8)


def cogvideox_video() -> Any:
    return cog("CogVideoXVideoToVideoPipeline", use_rotary_positional_embeddings=True)


def mochi() -> Any:
    from diffusers import AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler, MochiPipeline, MochiTransformer3DModel

    torch.manual_seed(0)
    transformer = MochiTransformer3DModel(
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
    vae = AutoencoderKLMochi(
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


def hunyuan_vae() -> Any:
    from diffusers import AutoencoderKLHunyuanVideo

    torch.manual_seed(1)
    return AutoencoderKLHunyuanVideo(
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
    import diffusers

    torch.manual_seed(0)
    return getattr(diffusers, name)(
        text_encoder=text.llama(),
        tokenizer=text.tokenizer(start=True),
        transformer=diffusers.HunyuanVideoTransformer3DModel(**HUNYUAN | overrides).eval(),
        vae=hunyuan_vae(),
        scheduler=flow(),
        text_encoder_2=text.clip_text(),
        tokenizer_2=text.tokenizer(start=True),
    )


def framepack() -> Any:
    """HunyuanVideo's blocks, with the frames so far as further tokens before the video's."""
    from diffusers import HunyuanVideoFramepackPipeline, HunyuanVideoFramepackTransformer3DModel

    encoder, processor = text.siglip_image()
    torch.manual_seed(0)
    config = HUNYUAN | {"has_image_proj": True, "image_proj_dim": text.WIDTH, "has_clean_x_embedder": True}
    return HunyuanVideoFramepackPipeline(
        text_encoder=text.llama(),
        tokenizer=text.tokenizer(start=True),
        transformer=HunyuanVideoFramepackTransformer3DModel(**config).eval(),
        vae=hunyuan_vae(),
        scheduler=flow(),
        text_encoder_2=text.clip_text(),
        tokenizer_2=text.tokenizer(start=True),
        image_encoder=encoder,
        feature_extractor=processor,
    )


def hunyuan15(name: str = "HunyuanVideo15Pipeline", task: str = "t2v", **parts: Any) -> Any:
    import diffusers

    torch.manual_seed(0)
    transformer = diffusers.HunyuanVideo15Transformer3DModel(
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
    vae = diffusers.AutoencoderKLHunyuanVideo15(
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
    pipe = getattr(diffusers, name)(
        text_encoder=text.qwen(),
        tokenizer=text.tokenizer(),
        transformer=transformer.eval(),
        vae=vae,
        scheduler=flow(),
        text_encoder_2=text.t5(),
        tokenizer_2=text.tokenizer(),
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=3.0),
        **parts,
    )
    pipe.system_message, pipe.prompt_template_encode_start_idx = "", 2  # the two roles of the chat
    pipe.tokenizer_max_length, pipe.tokenizer_2_max_length = 12, 6
    pipe.vision_num_semantic_tokens = 4
    return pipe


def easyanimate(pipeline: Any = None, channels: int = 4) -> Any:
    from diffusers import AutoencoderKLMagvit, EasyAnimatePipeline, EasyAnimateTransformer3DModel

    torch.manual_seed(0)
    transformer = EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=channels,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=text.WIDTH,
        num_layers=3,
        sample_width=16,
        sample_height=16,
        patch_size=2,
    )
    vae = AutoencoderKLMagvit(
        in_channels=3,
        out_channels=3,
        down_block_types=("SpatialDownBlock3D", *("SpatialTemporalDownBlock3D",) * 3),
        up_block_types=("SpatialUpBlock3D", *("SpatialTemporalUpBlock3D",) * 3),
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        spatial_group_norm=False,
    )
    return (pipeline or EasyAnimatePipeline)(
        vae=vae, text_encoder=text.qwen(), tokenizer=text.tokenizer(), transformer=transformer.eval(), scheduler=flow()
    )


def motif(name: str = "MotifVideoPipeline", image: int | None = None, **parts: Any) -> Any:
    import diffusers

    torch.manual_seed(0)
    transformer = diffusers.MotifVideoTransformer3DModel(
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
    return getattr(diffusers, name)(
        transformer=transformer.eval(),
        vae=wan_vae(),
        scheduler=flow(),
        tokenizer=text.tokenizer(),
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=3.0),
        **{"text_encoder": text.t5()} | parts,
    )


def consisid() -> Any:
    """With the local face extractor and its cross-attention between the blocks."""
    from diffusers import ConsisIDPipeline, ConsisIDTransformer3DModel, DDIMScheduler

    torch.manual_seed(0)
    transformer = ConsisIDTransformer3DModel(
        **{**COG, "in_channels": 8, "num_layers": 4},
        use_rotary_positional_embeddings=True,
        cross_attn_interval=2,
        is_kps=False,
        is_train_face=True,
        cross_attn_dim_head=8,
        cross_attn_num_heads=2,
        LFE_id_dim=4,
        LFE_vit_dim=4,
        LFE_depth=5,
        LFE_dim_head=2,
        LFE_num_heads=2,
        LFE_num_id_token=2,
        LFE_num_querie=2,
        LFE_output_dim=21,
        LFE_ff_mult=1,
        LFE_num_scale=1,
    )
    return ConsisIDPipeline(
        tokenizer=text.tokenizer(),
        text_encoder=text.t5(),
        vae=cog_vae(),
        transformer=transformer.eval(),
        scheduler=DDIMScheduler(prediction_type="v_prediction", clip_sample=False),
    )


def _hunyuan_image(kind: str, channels: int) -> Any:
    from diffusers import HunyuanVideoImageToVideoPipeline, HunyuanVideoTransformer3DModel

    torch.manual_seed(0)
    config = HUNYUAN | {"image_condition_type": kind, "in_channels": channels, "guidance_embeds": kind == "token_replace"}
    return HunyuanVideoImageToVideoPipeline(
        text_encoder=None,
        tokenizer=None,
        transformer=HunyuanVideoTransformer3DModel(**config).eval(),
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


def hunyuan_embeddings(guided: bool) -> dict[str, Any]:
    """Prompt embeddings, pooled ones and masks, as the text encoders would give."""
    draw = torch.Generator().manual_seed(3)
    kinds = ("", "negative_") if guided else ("",)
    made: dict[str, Any] = {}
    for kind in kinds:
        made[f"{kind}prompt_embeds"] = torch.randn(1, 12, text.WIDTH, generator=draw)
        made[f"{kind}pooled_prompt_embeds"] = torch.randn(1, 8, generator=draw)
        made[f"{kind}prompt_attention_mask"] = (torch.arange(12) < 9).long()[None]
    return made
