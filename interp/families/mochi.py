"""Mochi: joint attention, run row by row on the valid text only; the last block drops the text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cos_interp.interp.families import register
from cos_interp.interp.families.adapter import Adapter, Block, Site, Stack, has
from cos_interp.interp.families.shapes import attention


def block() -> Block:
    """The text's sub-layers run after the video's, so that their sites come last."""
    keeps_text = lambda b: not b.context_pre_only
    heads = tuple(s for s in attention("attn", "attn1", text="last") if not s.name.endswith("_text"))
    return (
        Site("hook_resid_pre", "tokens", "", "input", item=0),
        Site("hook_resid_pre_text", "text", "", "input", item=1),
        *heads,
        Site("hook_attn_out", "tokens", "attn1", "output", item=0),
        Site("hook_attn_out_text", "text", "attn1", "output", item=1, wanted=keeps_text),
        Site("hook_resid_mid", "tokens", "", "source.hidden_states_0"),
        Site("hook_mlp_out", "tokens", "ff", "output"),
        Site("hook_resid_mid_text", "text", "", "source.encoder_hidden_states_0", wanted=keeps_text),
        Site("hook_mlp_out_text", "text", "ff_context", "output", wanted=has("ff_context")),
        Site("hook_resid_post", "tokens", "", "output", item=0),
        Site("hook_resid_post_text", "text", "", "output", item=1, wanted=keeps_text),
    )


@register
class Mochi(Adapter):
    family = "Mochi"
    classes = ("MochiTransformer3DModel",)
    stacks = (Stack("transformer_blocks", block()),)
    ends = (
        Site("hook_time_emb", "vector", "time_embed", "output", item=0),
        Site("hook_embed", "tokens", "patch_embed", "output", fold="spatial"),
    )
    per_sample_attention = True
    notes = "keys of a pattern: video, then the row's valid text"

    def decode(self, pipe: Any, latents: Tensor) -> Tensor:
        """``latents * std / scaling_factor + mean``."""
        config, shape = pipe.vae.config, (1, -1, 1, 1, 1)
        latents = latents.to(pipe.vae.dtype)
        if config.latents_mean is None or config.latents_std is None:
            return pipe.vae.decode(latents / config.scaling_factor, return_dict=False)[0]
        mean, std = (torch.as_tensor(v).view(shape).to(latents) for v in (config.latents_mean, config.latents_std))
        return pipe.vae.decode(latents * std / config.scaling_factor + mean, return_dict=False)[0]
