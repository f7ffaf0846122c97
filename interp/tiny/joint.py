"""Tiny pipelines of families whose text and video meet in one attention: CogVideoX, Mochi, HunyuanVideo, EasyAnimate, ..."""

from __future__ import annotations

from typing import Any

import torch

from interp.tiny import text
from interp.tiny.wan import flow
from interp.tiny.wan import vae as wan_vae


def cog_vae() -> Any:
    from diffusers import AutoencoderKLCogVideoX

    torch.manual_seed(1)
    return AutoencoderKLCogVideoX(
        in_channels=3, out_channels=3, down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2, temporal_compression_ratio=4,
    )  # fmt: skip


COG = {
    "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4, "time_embed_dim": 8,
    "text_embed_dim": text.WIDTH, "num_layers": 3, "sample_width": 4, "sample_height": 4, "sample_frames": 9, "patch_size": 2,
    "temporal_compression_ratio": 4, "max_text_seq_length": 12,
}  # fmt: skip


def _cog(name: str, scheduler: str = "CogVideoXDDIMScheduler", **overrides: Any) -> Any:
    import diffusers

    torch.manual_seed(0)
    transformer = diffusers.CogVideoXTransformer3DModel(**COG | overrides).eval()
    made = getattr(diffusers, scheduler)(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, snr_shift_scale=1.0, timestep_spacing="trailing",
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
    )  # fmt: skip
    return getattr(diffusers, name)(
        tokenizer=text.tokenizer(), text_encoder=text.t5(), vae=cog_vae(), transformer=transformer, scheduler=made
    )


def cogvideox() -> Any:
    """As the 2B model: sinusoidal positions, DDIM."""
    return _cog("CogVideoXPipeline")


def cogvideox_5b() -> Any:
    """As the 5B model: rotary positions, the DPM scheduler that draws noise."""
    return _cog("CogVideoXPipeline", "CogVideoXDPMScheduler", use_rotary_positional_embeddings=True)


def cogvideox_image() -> Any:
    return _cog("CogVideoXImageToVideoPipeline", use_rotary_positional_embeddings=True, in_channels=8)


def cogvideox_video() -> Any:
    return _cog("CogVideoXVideoToVideoPipeline", use_rotary_positional_embeddings=True)


def mochi() -> Any:
    from diffusers import AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler, MochiPipeline, MochiTransformer3DModel

    torch.manual_seed(0)
    transformer = MochiTransformer3DModel(
        patch_size=2, num_attention_heads=2, attention_head_dim=8, num_layers=3, pooled_projection_dim=16, in_channels=12,
        qk_norm="rms_norm", text_embed_dim=text.WIDTH, time_embed_dim=4, max_sequence_length=12,
    )  # fmt: skip
    vae = AutoencoderKLMochi(
        latent_channels=12, out_channels=3, encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1,) * 5,
    )  # fmt: skip
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    return MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True), vae=vae, text_encoder=text.t5(), tokenizer=text.tokenizer(),
        transformer=transformer.eval(),
    )  # fmt: skip


def hunyuan_vae() -> Any:
    from diffusers import AutoencoderKLHunyuanVideo

    torch.manual_seed(1)
    return AutoencoderKLHunyuanVideo(
        in_channels=3, out_channels=3, latent_channels=4, down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, act_fn="silu",
        norm_num_groups=4, scaling_factor=0.476986, spatial_compression_ratio=8, temporal_compression_ratio=4,
        mid_block_add_attention=True,
    )  # fmt: skip


HUNYUAN = {
    "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 10, "num_layers": 2,
    "num_single_layers": 2, "num_refiner_layers": 1, "patch_size": 2, "patch_size_t": 1, "guidance_embeds": True,
    "text_embed_dim": text.WIDTH, "pooled_projection_dim": 8, "rope_axes_dim": (2, 4, 4),
}  # fmt: skip


def hunyuan() -> Any:
    from diffusers import HunyuanVideoPipeline, HunyuanVideoTransformer3DModel

    torch.manual_seed(0)
    return HunyuanVideoPipeline(
        text_encoder=text.llama(), tokenizer=text.tokenizer(start=True), transformer=HunyuanVideoTransformer3DModel(**HUNYUAN).eval(),
        vae=hunyuan_vae(), scheduler=flow(), text_encoder_2=text.clip_text(), tokenizer_2=text.tokenizer(start=True),
    )  # fmt: skip


def hunyuan15() -> Any:
    from diffusers import (
        AutoencoderKLHunyuanVideo15,
        ClassifierFreeGuidance,
        HunyuanVideo15Pipeline,
        HunyuanVideo15Transformer3DModel,
    )

    torch.manual_seed(0)
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=3, num_refiner_layers=1, mlp_ratio=2.0,
        patch_size=1, patch_size_t=1, text_embed_dim=text.WIDTH, text_embed_2_dim=text.WIDTH, image_embed_dim=12,
        rope_axes_dim=(2, 6, 8), target_size=16, task_type="t2v",
    )  # fmt: skip
    vae = AutoencoderKLHunyuanVideo15(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(16, 16), layers_per_block=1,
        spatial_compression_ratio=4, temporal_compression_ratio=4, downsample_match_channel=False, upsample_match_channel=False,
    )  # fmt: skip
    pipe = HunyuanVideo15Pipeline(
        text_encoder=text.qwen(), tokenizer=text.tokenizer(), transformer=transformer.eval(), vae=vae, scheduler=flow(),
        text_encoder_2=text.t5(), tokenizer_2=text.tokenizer(), guider=ClassifierFreeGuidance(guidance_scale=3.0),
    )  # fmt: skip
    pipe.tokenizer_max_length, pipe.prompt_template_encode_start_idx, pipe.tokenizer_2_max_length = 12, 8, 6
    pipe.vision_num_semantic_tokens, pipe.vision_states_dim = 4, 12
    return pipe


def easyanimate() -> Any:
    from diffusers import AutoencoderKLMagvit, EasyAnimatePipeline, EasyAnimateTransformer3DModel

    torch.manual_seed(0)
    transformer = EasyAnimateTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=2, text_embed_dim=text.WIDTH,
        num_layers=3, sample_width=16, sample_height=16, patch_size=2,
    )  # fmt: skip
    vae = AutoencoderKLMagvit(
        in_channels=3, out_channels=3, down_block_types=("SpatialDownBlock3D", *("SpatialTemporalDownBlock3D",) * 3),
        up_block_types=("SpatialUpBlock3D", *("SpatialTemporalUpBlock3D",) * 3), block_out_channels=(8, 8, 8, 8), latent_channels=4,
        layers_per_block=1, norm_num_groups=2, spatial_group_norm=False,
    )  # fmt: skip
    return EasyAnimatePipeline(
        vae=vae, text_encoder=text.qwen(), tokenizer=text.tokenizer(), transformer=transformer.eval(), scheduler=flow()
    )


def motif() -> Any:
    from diffusers import ClassifierFreeGuidance, MotifVideoPipeline, MotifVideoTransformer3DModel

    torch.manual_seed(0)
    transformer = MotifVideoTransformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=2, num_single_layers=3,
        num_decoder_layers=1, mlp_ratio=2.0, patch_size=2, patch_size_t=1, text_embed_dim=text.WIDTH, rope_axes_dim=(4, 4, 4),
    )  # fmt: skip
    return MotifVideoPipeline(
        transformer=transformer.eval(), vae=wan_vae(), scheduler=flow(), text_encoder=text.t5(), tokenizer=text.tokenizer(),
        guider=ClassifierFreeGuidance(guidance_scale=3.0),
    )  # fmt: skip
