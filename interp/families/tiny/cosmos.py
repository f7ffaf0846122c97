"""Tiny pipelines of Cosmos 1, 2 and 2.5, from text, pictures, videos and control videos."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from cos_interp.interp.families.tiny import text, wan
from cos_interp.interp.families.tiny.record import CHAT, SHORT, Keywords, Tiny, images, new, picture


class NoSafetyChecker:
    """Stands in for Cosmos' optional guard models, which need a download."""

    def to(self, *args: Any) -> NoSafetyChecker:
        return self

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, frames: Any) -> Any:
        return frames


def stand_in_for_torchvision() -> None:
    """Cosmos resizes its padding mask with torchvision, and 2.5 reads its picture with it; without it, the same nearest-neighbour
    resize of PyTorch serves, and the same shares of 255."""
    from diffusers.models.controlnets import controlnet_cosmos
    from diffusers.models.transformers import transformer_cosmos
    from diffusers.pipelines.cosmos import pipeline_cosmos2_5_predict as predict

    if not hasattr(transformer_cosmos, "transforms"):
        resize = lambda mask, size, interpolation: torch.nn.functional.interpolate(mask, size, mode="nearest")
        mode = SimpleNamespace(NEAREST="nearest")
        transforms = SimpleNamespace(functional=SimpleNamespace(resize=resize), InterpolationMode=mode)
        transformer_cosmos.transforms = controlnet_cosmos.transforms = transforms
    if not hasattr(predict, "torchvision"):
        read = SimpleNamespace(to_tensor=lambda picture: torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255)
        predict.torchvision = SimpleNamespace(transforms=SimpleNamespace(functional=read))


def cosmos_transformer(**overrides: Any) -> Any:
    stand_in_for_torchvision()
    torch.manual_seed(0)
    config = {
        "in_channels": 4,
        "out_channels": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "num_layers": 3,
        "mlp_ratio": 2,
        "text_embed_dim": text.WIDTH,
        "adaln_lora_dim": 4,
        "max_size": (4, 32, 32),
        "patch_size": (1, 2, 2),
        "rope_scale": (2.0, 1.0, 1.0),
        "concat_padding_mask": True,
        "extra_pos_embed_type": "learnable",
    }
    return new("CosmosTransformer3DModel", **config | overrides).eval()


def cosmos1(name: str = "CosmosTextToWorldPipeline", channels: int = 4) -> Any:
    transformer = cosmos_transformer(in_channels=channels)
    vae = new(
        "AutoencoderKLCosmos",
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        encoder_block_out_channels=(8, 8, 8, 8),
        decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,),
        resolution=64,
        num_layers=2,
        patch_size=4,
        patch_type="haar",
        scaling_factor=1.0,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
    )
    scheduler = new(
        "EDMEulerScheduler",
        sigma_min=0.002,
        sigma_max=80,
        sigma_data=0.5,
        sigma_schedule="karras",
        num_train_timesteps=1000,
        prediction_type="epsilon",
        rho=7.0,
        final_sigmas_type="sigma_min",
    )
    return new(
        name,
        text_encoder=text.t5(),
        tokenizer=text.tokenizer(),
        transformer=transformer,
        vae=vae,
        scheduler=scheduler,
        safety_checker=NoSafetyChecker(),
    )


def cosmos1_video() -> Any:
    """The first frames are given, with noise of their own at every step."""
    return cosmos1("CosmosVideoToWorldPipeline", channels=5)


def cosmos2_image() -> Any:
    from diffusers import Cosmos2VideoToWorldPipeline, FlowMatchEulerDiscreteScheduler

    transformer = cosmos_transformer(in_channels=5, extra_pos_embed_type=None)
    scheduler = FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)
    return Cosmos2VideoToWorldPipeline(
        text_encoder=text.t5(),
        tokenizer=text.tokenizer(),
        transformer=transformer,
        vae=wan.vae(),
        scheduler=scheduler,
        safety_checker=NoSafetyChecker(),
    )


COSMOS25_TEXT = 3 * text.WIDTH  # the states of all layers of the text encoder


def _cosmos25(name: str, parts: dict[str, Any] | None = None, **overrides: Any) -> Any:
    config = {"in_channels": 5, "extra_pos_embed_type": None, "text_embed_dim": COSMOS25_TEXT}
    transformer = cosmos_transformer(**config | overrides)
    return new(
        name,
        text_encoder=text.qwen(),
        tokenizer=text.tokenizer(),
        transformer=transformer,
        vae=wan.vae(),
        scheduler=wan.flow("unipc"),
        safety_checker=NoSafetyChecker(),
        **parts or {},
    )


def cosmos25() -> Any:
    """Text to video; with a video, its last frames are the first of the new one."""
    return _cosmos25("Cosmos2_5_PredictBasePipeline")


def cosmos25_transfer() -> Any:
    """A control network adds to the end of every second block; the text comes with (empty) image tokens."""
    stand_in_for_torchvision()
    image = {"img_context_dim_in": 8, "img_context_dim_out": 24}
    torch.manual_seed(2)
    control = new(
        "CosmosControlNetModel",
        n_controlnet_blocks=2,
        in_channels=8,
        latent_channels=6,
        model_channels=24,
        num_attention_heads=2,
        attention_head_dim=12,
        mlp_ratio=2,
        text_embed_dim=COSMOS25_TEXT,
        adaln_lora_dim=4,
        max_size=(4, 32, 32),
        **image,
    )
    overrides = image | {"img_context_num_tokens": 3, "controlnet_block_every_n": 2}
    return _cosmos25("Cosmos2_5_TransferPipeline", {"controlnet": control.eval()}, **overrides)


def controls(size: int, frames: int) -> Keywords:
    return {"controls": images(size, frames), "num_frames_per_chunk": frames}


def first_frames(size: int, frames: int) -> Keywords:
    """A video of which the first ``frames // 2`` are given."""
    return {"video": images(size, frames // 2)}


TINY = {
    "cosmos1": Tiny(cosmos1, SHORT),
    "cosmos1-v2w": Tiny(cosmos1_video, SHORT, first_frames),
    "cosmos2-v2w": Tiny(cosmos2_image, SHORT, picture),
    "cosmos2.5": Tiny(cosmos25, CHAT),
    "cosmos2.5-v2w": Tiny(cosmos25, CHAT | {"num_latent_conditional_frames": 1}, first_frames),
    "cosmos2.5-transfer": Tiny(cosmos25_transfer, CHAT, controls, frames=None),
}
