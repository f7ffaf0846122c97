"""Cosmos 1 (EDM), 2 (rectified flow parametrised as EDM) and 2.5 (flow): cross-attention blocks with gates from their norms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cos_interp.interp.families import register
from cos_interp.interp.families.adapter import Adapter, Block, Site, Stack, has
from cos_interp.interp.families.shapes import cross_block
from cos_interp.interp.families.sites import Transformer


def with_image(block: Block) -> Block:
    """The block with the image attention of Cosmos 2.5 Transfer, which runs after the text attention.

    The pipeline fills its image tokens with zeros: all are equal, so that queries, keys and pattern change nothing.
    """
    place = next(i for i, site in enumerate(block) if site.name == "cross_attn.hook_z") + 1
    image = Site("cross_attn.hook_image_z", "heads", "attn2", "hook_image_z", wanted=has("attn2.k_img"))
    return (*block[:place], image, *block[place:])


@register
class Cosmos(Adapter):
    family = "Cosmos"
    classes = ("CosmosTransformer3DModel",)
    stacks = (Stack("transformer_blocks", with_image(cross_block(mid="hidden_states_2", mid2="hidden_states_3"))),)
    ends = (
        Site("hook_embed", "grid", "patch_embed", "output"),
        Site("hook_time_emb", "vector", "time_embed", "output", item=1),
    )
    unbatched = ("padding_mask", "fps")
    apart = ("CosmosVideoToWorld",)
    notes = (
        "Cosmos 2.5 Transfer: one chunk of the video; the control network has no names, its output is in hook_resid_post; "
        "cross_attn.hook_image_z is what the image tokens add, which the pipeline makes all equal"
    )

    def adds_before_attention(self, transformer: Transformer) -> bool:
        return transformer.config.extra_pos_embed_type is not None

    def adds_after_mlp(self, transformer: Transformer, call: Mapping[str, Any]) -> set[int]:
        """The output of the control network is added at the end of some blocks."""
        if call.get("block_controlnet_hidden_states") is None:
            return set()
        return set(range(0, len(transformer.transformer_blocks), transformer.config.controlnet_block_every_n))

    def rereads(self, transformer: Transformer, layer: int) -> bool:
        """The control network sees the latents of every step."""
        return getattr(transformer.config, "controlnet_block_every_n", None) is not None

    def is_step(self, scheduler: Any, arguments: Mapping[str, Any]) -> bool:
        """Cosmos 1 first asks its EDM scheduler for the clean estimate of each branch, then steps with the guided one."""
        return type(scheduler).__name__ != "EDMEulerScheduler" or arguments.get("pred_original_sample") is not None

    def one_video(self, pipe: Any, call: Mapping[str, Any]) -> bool:
        """Cosmos 2.5 continues one video at a time."""
        return type(pipe).__name__.startswith("Cosmos2_5_Predict") and call.get("video") is not None

    def refuses_call(self, pipe: Any, call: Mapping[str, Any]) -> str | None:
        """Cosmos 2.5 Transfer denoises chunk after chunk, and cuts the last one to the frames that are wanted."""
        chunk = call.get("num_frames_per_chunk")
        if chunk is None:
            return None
        frames = _count(call["controls"])
        frames = min(frames, call.get("num_frames") or frames)
        if frames == chunk:
            return None
        return (
            f"a video of {frames} frames is made in chunks of {chunk}, each with a denoising loop of its own, and one whole "
            f"chunk can be followed: give num_frames_per_chunk={frames}, or controls and num_frames of {chunk} frames"
        )

    def decode(self, pipe: Any, latents: Tensor) -> Tensor:
        """With the VAE's statistics and the scheduler's ``sigma_data``."""
        config, scale = pipe.vae.config, pipe.scheduler.config.get("sigma_data", 1.0)
        mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if mean is None:
            return pipe.vae.decode((latents / scale).to(pipe.vae.dtype), return_dict=False)[0]
        channels = latents.shape[1]
        shaped = (torch.as_tensor(v).view(1, channels, -1, 1, 1)[:, :, : latents.shape[2]].to(latents) for v in (mean, std))
        mean, std = shaped
        return pipe.vae.decode((latents * std / scale + mean).to(pipe.vae.dtype), return_dict=False)[0]


def _count(controls: Any) -> int:
    """Frames of the control videos, which come as lists of pictures or as tensors, one or a list of them."""
    while isinstance(controls, list) and (isinstance(controls[0], list) or getattr(controls[0], "ndim", 3) > 3):
        controls = controls[0]
    return len(controls) if isinstance(controls, list) else controls.shape[-4]
