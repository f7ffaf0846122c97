"""LTX-Video: the pipeline packs latents into tokens, frame by frame and row by row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cos_interp.interp.families import register
from cos_interp.interp.families.adapter import Adapter, Site, Stack
from cos_interp.interp.families.layouts import PACKED
from cos_interp.interp.families.shapes import cross_block


def scaled(pipe: Any, latents: Tensor) -> Tensor:
    """Latents in the VAE's own scale, by its statistics."""
    vae, shape = pipe.vae, (1, -1, 1, 1, 1)
    mean, std = vae.latents_mean.view(shape).to(latents), vae.latents_std.view(shape).to(latents)
    return latents * std / vae.config.scaling_factor + mean


@register
class LTX(Adapter):
    family = "LTX-Video"
    classes = ("LTXVideoTransformer3DModel",)
    stacks = (Stack("transformer_blocks", cross_block()),)
    ends: tuple[Site, ...] = (
        Site("hook_embed", "tokens", "proj_in", "output"),
        Site("hook_time_emb", "vector", "time_embed", "output", item=1),
    )
    layout = PACKED
    notes = "patch sizes of 1 only, as in every released model"

    def refuses(self, config: Any) -> str | None:
        return None if (config.patch_size, config.patch_size_t) == (1, 1) else "its patch sizes are not 1"

    def decode(self, pipe: Any, latents: Tensor) -> Tensor:
        """With the VAE's statistics; a VAE that is told a timestep gets 0 (the pipeline's default) and no noise."""
        vae = pipe.vae
        latents = scaled(pipe, latents).to(vae.dtype)
        told = vae.config.timestep_conditioning
        time = torch.zeros(len(latents), dtype=latents.dtype, device=latents.device) if told else None
        return vae.decode(latents, time, return_dict=False)[0]
