"""Tiny random pipelines of the Wan family, built offline; torch on one thread, so that results are bitwise."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)


def _vae(spatial_patch: int | None = None):
    from diffusers import AutoencoderKLWan

    torch.manual_seed(1)
    return AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.1, 0.0, -0.1, 0.2], latents_std=[1.0, 1.1, 0.9, 1.2],
    )  # fmt: skip


def _transformer(seed: int, **overrides):
    from diffusers import WanTransformer3DModel

    torch.manual_seed(seed)
    config = {
        "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4,
        "text_dim": 64, "freq_dim": 32, "ffn_dim": 32, "num_layers": 3, "cross_attn_norm": True, "rope_max_seq_len": 32,
    }  # fmt: skip
    return WanTransformer3DModel(**config | overrides).eval()


def _scheduler(name: str):
    from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

    if name == "euler":
        return FlowMatchEulerDiscreteScheduler(shift=3.0)
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def build_tiny(family: str, scheduler: str = "euler"):
    """A fresh tiny pipeline: wan21-t2v, wan21-i2v (image encoder), wan22-t2v, wan22-i2v (two experts) or ti2v-5b."""
    from diffusers import WanImageToVideoPipeline, WanPipeline

    from organism.text import build_encoder, build_tokenizer

    parts = {
        "tokenizer": build_tokenizer(), "text_encoder": build_encoder(), "vae": _vae(), "scheduler": _scheduler(scheduler),
    }  # fmt: skip
    if family == "wan21-t2v":
        return WanPipeline(transformer=_transformer(0), **parts)
    if family == "wan22-t2v":
        return WanPipeline(transformer=_transformer(0), transformer_2=_transformer(1), boundary_ratio=0.85, **parts)
    if family == "wan21-i2v":
        transformer = _transformer(0, in_channels=12, image_dim=16, added_kv_proj_dim=24)
        encoder, processor = _clip()
        return WanImageToVideoPipeline(transformer=transformer, image_encoder=encoder, image_processor=processor, **parts)
    if family == "wan22-i2v":
        two = {"transformer": _transformer(0, in_channels=12), "transformer_2": _transformer(1, in_channels=12)}
        return WanImageToVideoPipeline(**two, boundary_ratio=0.85, **parts)
    if family == "ti2v-5b":
        return WanImageToVideoPipeline(transformer=_transformer(0), expand_timesteps=True, **parts)
    raise ValueError(family)


def _clip():
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(2)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16
    )
    size = {"height": 32, "width": 32}
    return CLIPVisionModel(config).eval(), CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)


FAMILIES = ("wan21-t2v", "wan21-i2v", "wan22-t2v", "wan22-i2v", "ti2v-5b")


def tiny_call(family: str, guidance: float = 3.0, steps: int = 4) -> dict:
    """Pipeline keywords of a small generation."""
    call = {
        "prompt": "move the red circle above the box", "height": 32, "width": 32, "num_frames": 9,
        "num_inference_steps": steps, "guidance_scale": guidance, "max_sequence_length": 512 if family == "wan21-i2v" else 12,
    }  # fmt: skip
    if family.endswith("i2v") or family == "ti2v-5b":
        pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        call["image"] = Image.fromarray(pixels)
    return call


@cache
def _organism():
    from interp import HookedVideoPipeline

    return HookedVideoPipeline.from_pretrained("organism")


@pytest.fixture
def organism():
    """The shipped organism, loaded once a process."""
    return _organism()
