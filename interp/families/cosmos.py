"""Cosmos 1 (EDM) and 2 (rectified flow parametrised as EDM): cross-attention blocks with gates from their norms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from interp.families import register
from interp.families.adapter import Adapter, Site, Stack
from interp.families.shapes import cross_block

EDM = ("EDMEulerScheduler",)


def is_step(scheduler: Any, arguments: Mapping[str, Any]) -> bool:
    """Cosmos 1 first asks its EDM scheduler for the clean estimate of each branch, then steps with the guided one."""
    return type(scheduler).__name__ not in EDM or arguments.get("pred_original_sample") is not None


def decode(pipe: Any, latents: Tensor) -> Tensor:
    """With the VAE's statistics and the scheduler's ``sigma_data``."""
    config, scale = pipe.vae.config, pipe.scheduler.config.get("sigma_data", 1.0)
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is None:
        return pipe.vae.decode((latents / scale).to(pipe.vae.dtype), return_dict=False)[0]
    channels = latents.shape[1]
    shaped = (torch.as_tensor(v).view(1, channels, -1, 1, 1)[:, :, : latents.shape[2]].to(latents) for v in (mean, std))
    mean, std = shaped
    return pipe.vae.decode((latents * std / scale + mean).to(pipe.vae.dtype), return_dict=False)[0]


COSMOS = register(
    Adapter(
        "Cosmos",
        ("CosmosTransformer3DModel",),
        (Stack("transformer_blocks", cross_block(mid="hidden_states_2", mid2="hidden_states_3")),),
        (
            Site("hook_embed", "grid", "patch_embed", "output"),
            Site("hook_time_emb", "vector", "time_embed", "output", item=1),
        ),
        unbatched=("padding_mask", "fps"),
        adds_before_attention=lambda transformer: transformer.config.extra_pos_embed_type is not None,
        is_step=is_step,
        decode=decode,
    )
)
