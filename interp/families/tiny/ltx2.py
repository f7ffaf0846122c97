"""Tiny pipelines of LTX-2: video and audio transformer, both VAEs, the text connectors and the vocoder."""

from __future__ import annotations

from typing import Any

import torch

from cos_interp.interp.families.ltx2 import OTHER_GUIDANCE
from cos_interp.interp.families.tiny import text
from cos_interp.interp.families.tiny.record import PLAIN, SHORT, Keywords, Tiny, image, new, picture
from cos_interp.interp.families.tiny.wan import flow

LAYERS = 1  # of the text encoder


def _transformer() -> Any:
    torch.manual_seed(0)
    return new(
        "LTX2VideoTransformer3DModel",
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        audio_in_channels=4,
        audio_out_channels=4,
        audio_num_attention_heads=2,
        audio_attention_head_dim=4,
        audio_cross_attention_dim=8,
        num_layers=2,
        caption_channels=text.WIDTH,
        rope_double_precision=False,
        rope_type="split",
    ).eval()


def _connectors() -> Any:
    from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors

    torch.manual_seed(2)
    return LTX2TextConnectors(
        caption_channels=text.WIDTH,
        text_proj_in_factor=LAYERS + 1,
        video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=8,
        video_connector_num_layers=1,
        video_connector_num_learnable_registers=None,
        audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=8,
        audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=None,
        connector_rope_base_seq_len=32,
        rope_double_precision=False,
        rope_type="split",
    ).eval()


def _vae() -> Any:
    torch.manual_seed(1)
    vae = new(
        "AutoencoderKLLTX2Video",
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(8, 8, 8),
        down_block_types=("LTX2VideoDownBlock3D",) * 3,
        decoder_block_out_channels=(8, 8, 8),
        layers_per_block=(1,) * 4,
        decoder_layers_per_block=(1,) * 4,
        spatio_temporal_scaling=(True,) * 3,
        decoder_spatio_temporal_scaling=(True,) * 3,
        decoder_inject_noise=(False,) * 4,
        downsample_type=("spatial", "spatiotemporal", "spatiotemporal"),
        upsample_type=("spatiotemporal", "spatiotemporal", "spatial"),
        upsample_residual=(False,) * 3,
        upsample_factor=(1,) * 3,
        patch_size=1,
        decoder_causal=False,
        spatial_compression_ratio=8,
        temporal_compression_ratio=4,
    )
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    vae.latents_mean.copy_(torch.tensor([0.1, 0.0, -0.1, 0.2]))
    vae.latents_std.copy_(torch.tensor([1.0, 1.1, 0.9, 1.2]))
    return vae


def _audio() -> tuple[Any, Any]:
    """The audio VAE, and the vocoder that turns its mel spectrograms into sound."""
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

    torch.manual_seed(3)
    vae = new(
        "AutoencoderKLLTX2Audio",
        base_channels=4,
        ch_mult=(1,),
        num_res_blocks=1,
        resolution=32,
        latent_channels=2,
        mel_bins=8,
    )
    vocoder = LTX2Vocoder(
        in_channels=16,
        hidden_channels=32,
        upsample_kernel_sizes=[4, 4],
        upsample_factors=[2, 2],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1, 3, 5]],
        output_sampling_rate=16000,
    )
    return vae, vocoder


def pipeline(name: str) -> Any:
    audio_vae, vocoder = _audio()
    return new(
        name,
        scheduler=flow(),
        vae=_vae(),
        audio_vae=audio_vae,
        text_encoder=text.gemma3(LAYERS),
        tokenizer=text.tokenizer(start=True),
        connectors=_connectors(),
        transformer=_transformer(),
        vocoder=vocoder,
    )


def ltx2() -> Any:
    return pipeline("LTX2Pipeline")


def ltx2_image() -> Any:
    return pipeline("LTX2ImageToVideoPipeline")


def ltx2_condition() -> Any:
    return pipeline("LTX2ConditionPipeline")


def first_frame(size: int, frames: int) -> Keywords:
    from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

    return {"conditions": [LTX2VideoCondition(frames=image(size), index=0, crf=0)]}


KEYWORDS = SHORT | OTHER_GUIDANCE
GUIDANCE = (PLAIN[0], {"guidance_scale": 1.0, "audio_guidance_scale": 1.0})
TINY = {
    "ltx2": Tiny(ltx2, KEYWORDS, guidance=GUIDANCE),
    "ltx2-i2v": Tiny(ltx2_image, KEYWORDS | {"image_crf": 0}, picture, GUIDANCE),
    "ltx2-condition": Tiny(ltx2_condition, KEYWORDS, first_frame, GUIDANCE),
}
