"""Tiny pipelines of CogVideoX, text, image and video to video, with control; and of ConsisID."""

from __future__ import annotations

from typing import Any

import torch

from cos_interp.interp.families.tiny import text
from cos_interp.interp.families.tiny.record import SHORT, Keywords, Tiny, images, new, picture, video


def cog_vae() -> Any:
    torch.manual_seed(1)
    return new(
        "AutoencoderKLCogVideoX",
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
    torch.manual_seed(0)
    transformer = new("CogVideoXTransformer3DModel", **COG | overrides).eval()
    made = new(
        scheduler,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=1.0,
        timestep_spacing="trailing",
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
    )
    return new(name, tokenizer=text.tokenizer(), text_encoder=text.t5(), vae=cog_vae(), transformer=transformer, scheduler=made)


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


def cogvideox_control() -> Any:
    """The control video comes as further channels."""
    return cog("CogVideoXFunControlPipeline", use_rotary_positional_embeddings=True, in_channels=8)


def consisid() -> Any:
    """With the local face extractor and its cross-attention between the blocks."""
    from diffusers import ConsisIDPipeline, DDIMScheduler

    torch.manual_seed(0)
    transformer = new(
        "ConsisIDTransformer3DModel",
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


def control(size: int, frames: int) -> Keywords:
    return {"control_video": images(size, frames)}


def face(size: int, frames: int) -> Keywords:
    """A picture, and what a recogniser would say of the face in it."""
    return picture(size, frames) | {"id_vit_hidden": [torch.ones(1, 2, 4)], "id_cond": torch.ones(1, 4)}


TINY = {
    "cogvideox": Tiny(cogvideox, SHORT),
    "cogvideox-5b": Tiny(cogvideox_5b, SHORT),
    "cogvideox-i2v": Tiny(cogvideox_image, SHORT, picture),
    "cogvideox-v2v": Tiny(cogvideox_video, SHORT | {"strength": 0.8}, video, frames=None),
    "cogvideox-control": Tiny(cogvideox_control, SHORT, control, frames=None),
    "consisid": Tiny(consisid, SHORT, face),
}
