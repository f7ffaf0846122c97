"""EasyAnimate 5.1 (text, inpainting, control): joint attention with text first, two streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cos_interp.interp.families import decoding, register
from cos_interp.interp.families.adapter import Adapter, Site, Stack
from cos_interp.interp.families.contract import takes
from cos_interp.interp.families.shapes import joint_block


@register
class EasyAnimate(Adapter):
    family = "EasyAnimate"
    classes = ("EasyAnimateTransformer3DModel",)
    stacks = (Stack("transformer_blocks", joint_block(text="first", text_mlp="txt_ff")),)
    ends = (
        Site("hook_time_emb", "vector", "time_embedding", "output"),
        Site("hook_embed", "embed", "proj", "output", fold="spatial"),
    )
    recalls = ("prepare_mask_latents", "prepare_control_latents")
    apart = ("",)
    notes = (
        "EasyAnimateControlPipeline of diffusers 0.42 calls its own encode_prompt wrongly: proven with that mended; "
        "inpainting with strength below 1 encodes its video with noise of PyTorch's global generator, whatever the seed"
    )

    def one_video(self, pipe: Any, call: Mapping[str, Any]) -> bool:
        """The inpainting pipeline does not repeat its mask for a batch."""
        return call.get("mask_video") is not None

    def refuses_call(self, pipe: Any, call: Mapping[str, Any]) -> str | None:
        """The control pipeline of diffusers 0.42 gives its own ``encode_prompt`` a keyword that this does not take."""
        if "control_video" not in call or takes(pipe.encode_prompt, "text_encoder_index"):
            return None
        return (
            "the pipeline calls its own encode_prompt with text_encoder_index, which this version of diffusers does not take "
            "there, so that it fails without the instrument as well: load a subclass whose encode_prompt(self, *args, "
            "text_encoder_index=0, **kwargs) returns super().encode_prompt(*args, **kwargs)"
        )

    def decode(self, pipe: Any, latents: Tensor) -> Tensor:
        return decoding.by_scaling_factor(pipe, latents)
