"""Tiny pipelines of the Wan family and of the models built from its blocks; others use its VAE and its scheduler."""

from __future__ import annotations

from typing import Any

import torch

from cos_interp.interp.families.tiny import text
from cos_interp.interp.families.tiny.record import LONG, SHORT, Keywords, Tiny, new, picture, video

BLOCK = {
    "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4,
    "text_dim": text.WIDTH, "freq_dim": 32, "ffn_dim": 32, "num_layers": 3, "cross_attn_norm": True, "rope_max_seq_len": 32,
}  # fmt: skip


def vae() -> Any:
    torch.manual_seed(1)
    return new(
        "AutoencoderKLWan", base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.1, 0.0, -0.1, 0.2], latents_std=[1.0, 1.1, 0.9, 1.2],
    )  # fmt: skip


def flow(name: str = "euler") -> Any:
    """A flow-matching scheduler: ``euler`` or ``unipc``."""
    from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

    if name == "euler":
        return FlowMatchEulerDiscreteScheduler(shift=3.0)
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def transformer(class_name: str, seed: int = 0, **overrides: Any) -> Any:
    torch.manual_seed(seed)
    return new(class_name, **BLOCK | overrides).eval()


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


def vace22() -> Any:
    """Wan 2.2 VACE: two experts."""
    from diffusers import WanVACEPipeline

    experts = [vace_transformer(seed) for seed in (0, 1)]
    return WanVACEPipeline(transformer=experts[0], transformer_2=experts[1], boundary_ratio=0.85, **parts(flow("unipc")))


def lucy() -> Any:
    """The video to edit comes as further channels of a Wan 2.2 5B transformer."""
    from diffusers import LucyEditPipeline

    return LucyEditPipeline(
        transformer=transformer("WanTransformer3DModel", in_channels=8), expand_timesteps=True, **parts(flow())
    )


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


def performer(size: int, frames: int) -> Keywords:
    """A picture, and the videos whose movement it takes."""
    clip = video(size, frames)["video"]
    return picture(size, frames) | {"pose_video": clip, "face_video": clip}


TINY = {
    "wan2.1": Tiny(wan21, SHORT),
    "wan2.1-i2v": Tiny(wan21_image, LONG, picture),
    "wan2.1-v2v": Tiny(wan_video, SHORT | {"strength": 0.8}, video, frames=None),
    "wan2.2": Tiny(wan22, SHORT),
    "wan2.2-i2v": Tiny(wan22_image, SHORT, picture),
    "wan2.2-ti2v-5b": Tiny(ti2v_5b, SHORT, picture),
    "wan-vace": Tiny(vace, SHORT),
    "wan2.2-vace": Tiny(vace22, SHORT),
    "wan-lucy-edit": Tiny(lucy, SHORT, video, frames=None),
    "wan-animate": Tiny(animate, LONG | {"segment_frame_length": 9}, performer, frames=None),
    "skyreels-v2": Tiny(skyreels, SHORT),
    "skyreels-v2-i2v": Tiny(skyreels_image, LONG, picture),
    "chronoedit": Tiny(chronoedit, LONG | {"num_frames": 5}, picture),
}
