"""Tiny pipelines of the Wan family and of the models built from its blocks."""

from __future__ import annotations

from typing import Any

import torch

from cos_interp.interp.families.tiny import text

BLOCK = {
    "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4,
    "text_dim": text.WIDTH, "freq_dim": 32, "ffn_dim": 32, "num_layers": 3, "cross_attn_norm": True, "rope_max_seq_len": 32,
}  # fmt: skip


def vae() -> Any:
    from diffusers import AutoencoderKLWan

    torch.manual_seed(1)
    return AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.1, 0.0, -0.1, 0.2], latents_std=[1.0, 1.1, 0.9, 1.2],
    )  # fmt: skip


def flow(name: str = "euler") -> Any:
    """A flow-matching scheduler: ``euler`` or ``unipc``."""
    from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

    if name == "euler":
        return FlowMatchEulerDiscreteScheduler(shift=3.0)
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def transformer(class_name: str, seed: int = 0, **overrides: Any) -> Any:
    import diffusers

    torch.manual_seed(seed)
    return getattr(diffusers, class_name)(**BLOCK | overrides).eval()


def parts(scheduler: Any) -> dict[str, Any]:
    return {"tokenizer": text.tokenizer(), "text_encoder": text.t5(multilingual=True), "vae": vae(), "scheduler": scheduler}


def wan21() -> Any:
    from diffusers import WanPipeline

    return WanPipeline(transformer=transformer("WanTransformer3DModel"), **parts(flow()))


def wan22() -> Any:
    from diffusers import WanPipeline

    experts = [transformer("WanTransformer3DModel", seed) for seed in (0, 1)]
    return WanPipeline(transformer=experts[0], transformer_2=experts[1], boundary_ratio=0.85, **parts(flow("unipc")))


def wan22_image() -> Any:
    from diffusers import WanImageToVideoPipeline

    experts = [transformer("WanTransformer3DModel", seed, in_channels=12) for seed in (0, 1)]
    return WanImageToVideoPipeline(transformer=experts[0], transformer_2=experts[1], boundary_ratio=0.85, **parts(flow()))


def wan21_image() -> Any:
    from diffusers import WanImageToVideoPipeline

    encoder, processor = text.clip_image()
    made = transformer("WanTransformer3DModel", in_channels=12, image_dim=16, added_kv_proj_dim=24)
    return WanImageToVideoPipeline(transformer=made, image_encoder=encoder, image_processor=processor, **parts(flow()))


def ti2v_5b() -> Any:
    from diffusers import WanImageToVideoPipeline

    return WanImageToVideoPipeline(transformer=transformer("WanTransformer3DModel"), expand_timesteps=True, **parts(flow()))


def wan_video() -> Any:
    from diffusers import WanVideoToVideoPipeline

    return WanVideoToVideoPipeline(transformer=transformer("WanTransformer3DModel"), **parts(flow()))


def vace_transformer(seed: int = 0) -> Any:
    return transformer("WanVACETransformer3DModel", seed, vace_layers=[0, 2], vace_in_channels=72)


def vace() -> Any:
    from diffusers import WanVACEPipeline

    return WanVACEPipeline(transformer=vace_transformer(), **parts(flow()))


def animate() -> Any:
    from diffusers import WanAnimatePipeline

    encoder, processor = text.clip_image()
    torch.manual_seed(0)
    made = transformer(
        "WanAnimateTransformer3DModel", num_layers=4, in_channels=12, latent_channels=4, image_dim=16, added_kv_proj_dim=24,
        motion_encoder_channel_sizes={"4": 8, "8": 8, "16": 8, "32": 8}, motion_encoder_size=32, motion_style_dim=8, motion_dim=4,
        motion_encoder_dim=8, face_encoder_hidden_dim=16, face_encoder_num_heads=2, inject_face_latents_blocks=2,
    )  # fmt: skip
    return WanAnimatePipeline(transformer=made, image_encoder=encoder, image_processor=processor, **parts(flow("unipc")))


def skyreels() -> Any:
    from diffusers import SkyReelsV2Pipeline

    return SkyReelsV2Pipeline(transformer=transformer("SkyReelsV2Transformer3DModel"), **parts(flow("unipc")))


def skyreels_image() -> Any:
    from diffusers import SkyReelsV2ImageToVideoPipeline

    encoder, processor = text.clip_image()
    made = transformer("SkyReelsV2Transformer3DModel", in_channels=12, image_dim=16, added_kv_proj_dim=24)
    return SkyReelsV2ImageToVideoPipeline(
        transformer=made, image_encoder=encoder, image_processor=processor, **parts(flow("unipc"))
    )


def skyreels_forcing() -> Any:
    from diffusers import SkyReelsV2DiffusionForcingPipeline

    return SkyReelsV2DiffusionForcingPipeline(transformer=transformer("SkyReelsV2Transformer3DModel"), **parts(flow("unipc")))


def chronoedit() -> Any:
    from diffusers import ChronoEditPipeline

    encoder, processor = text.clip_image()
    made = transformer(
        "ChronoEditTransformer3DModel", in_channels=12, image_dim=16, added_kv_proj_dim=24, rope_temporal_skip_len=8
    )
    return ChronoEditPipeline(transformer=made, image_encoder=encoder, image_processor=processor, **parts(flow()))
