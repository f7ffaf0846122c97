"""FramePack: HunyuanVideo's blocks with the frames so far as further tokens ("history") before the video's.

The pipeline makes a video section by section, with a denoising loop for each; one section can be followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil, prod
from typing import Any

from torch import Tensor

from cos_interp.interp.families import decoding, register
from cos_interp.interp.families.adapter import Adapter, Block, Site, Stack
from cos_interp.interp.families.hunyuan import DUAL, EMBED
from cos_interp.interp.families.layouts import Dims
from cos_interp.interp.families.shapes import parallel_block

# what the transformer is told of the frames so far, and the patches (frame, row, column) in which it reads them
HISTORY = {"latents_clean": (1, 2, 2), "latents_history_2x": (2, 4, 4), "latents_history_4x": (4, 8, 8)}
KEPT = {"latents_clean": 2, "latents_history_2x": 2, "latents_history_4x": 16}  # their latent frames


def after_history(block: Block) -> Block:
    """The block where history comes before the video's tokens; it has keys, values and a residual stream of its own."""
    made: list[Site] = []
    for site in block:
        made.append(replace(site, part="lead") if site.kind == "tokens" else site)
        if site.name in ("attn.hook_k", "attn.hook_v"):
            made.append(replace(site, name=f"{site.name}_history", kind="history_heads", part="history"))
        if site.name in ("hook_resid_pre", "hook_resid_post"):
            made.append(replace(site, name=f"{site.name}_history", kind="history", part="history"))
    return tuple(made)


@register
class FramePack(Adapter):
    family = "FramePack"
    classes = ("HunyuanVideoFramepackTransformer3DModel",)
    stacks = (
        Stack("transformer_blocks", after_history(DUAL)),
        Stack("single_transformer_blocks", after_history(parallel_block())),
    )
    ends = (EMBED, Site("hook_time_emb", "vector", "time_text_embed", "output", item=0))
    recalls = ("encode_image", "prepare_image_latents")
    notes = (
        "one section of the video (num_frames up to the window of latent_window_size latent frames); keys of a pattern: "
        "history, video, text; Run.decode shows the picture's frame first"
    )

    def history(self, config: Any, call: Mapping[str, Any]) -> int:
        return _tokens({name: call[name].shape[2:] for name in HISTORY if call.get(name) is not None})

    def history_at(self, config: Any, dims: Dims) -> int:
        return _tokens({name: (frames, *dims[1:]) for name, frames in KEPT.items()})

    def one_video(self, pipe: Any, call: Mapping[str, Any]) -> bool:
        return True

    def refuses_call(self, pipe: Any, call: Mapping[str, Any]) -> str | None:
        """Sections are denoised one after the other, so that a step of the run would have several addresses."""
        window, asked = call["latent_window_size"], call["num_frames"]
        fits = (window - 1) * pipe.vae_scale_factor_temporal + 1
        if asked <= fits:
            return None
        return (
            f"num_frames={asked} makes {-(-asked // fits)} sections, each with a denoising loop of its own, and one can be "
            f"followed: give num_frames={fits}, which is one section of latent_window_size={window}"
        )

    def unlike_video(self, config: Any) -> str | None:
        return "the frame of its picture is shown before those that it denoises"

    def decode(self, pipe: Any, latents: Tensor) -> Tensor:
        return decoding.by_scaling_factor(pipe, latents)


def _tokens(shapes: Mapping[str, Sequence[int]]) -> int:
    """Tokens of what the transformer is told of earlier frames, each of a shape ``(frames, rows, columns)``."""
    return sum(prod(ceil(n / cells) for n, cells in zip(shape, HISTORY[name], strict=True)) for name, shape in shapes.items())
