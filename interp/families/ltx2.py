"""LTX-2: a video and an audio stream, which look at the text and at each other; both are denoised, with a scheduler each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cos_interp.interp.families import register
from cos_interp.interp.families.adapter import Block, Site, Stack
from cos_interp.interp.families.ltx import LTX, scaled

# kinds of one stream's heads
VIDEO_HEADS, AUDIO_HEADS, TEXT_HEADS = "heads", "audio_heads", "text_heads"
# guidance that runs further forwards with parts of the blocks left out, and the value that switches it off
OTHER_GUIDANCE: dict[str, float] = {"stg_scale": 0, "audio_stg_scale": 0, "modality_scale": 1, "audio_modality_scale": 1}


def attention(name: str, module: str, queries: str, keys: str) -> Block:
    """q, k, v, pattern, z of one stream that looks at another; names of the audio's queries end in ``_audio``."""
    audio = queries == AUDIO_HEADS
    kinds = (("q", queries), ("k", keys), ("v", keys), ("pattern", "audio_pattern" if audio else "pattern"), ("z", queries))
    return tuple(Site(f"{name}.hook_{n}{'_audio' * audio}", kind, module, f"hook_{n}") for n, kind in kinds)


def look(name: str, module: str, keys: str, after: str, audio: bool, label: int) -> Block:
    """An attention of one stream, what it gives, and the residual stream ``hook_resid_{after}``."""
    kind, end = ("audio", "_audio") if audio else ("tokens", "")
    stream = "audio_hidden_states" if audio else "hidden_states"
    return (
        *attention(name, module, AUDIO_HEADS if audio else VIDEO_HEADS, keys),
        Site(f"hook_{name}_out{end}", kind, module, "output"),
        Site(f"hook_resid_{after}{end}", kind, "", f"source.{stream}_{label}"),
    )


BLOCK: Block = (
    Site("hook_resid_pre", "tokens", "", "input", item=0),
    Site("hook_resid_pre_audio", "audio", "", "input", item=1),
    *look("attn", "attn1", VIDEO_HEADS, "mid", audio=False, label=0),
    *look("attn", "audio_attn1", AUDIO_HEADS, "mid", audio=True, label=0),
    *look("cross_attn", "attn2", TEXT_HEADS, "mid2", audio=False, label=1),
    *look("cross_attn", "audio_attn2", TEXT_HEADS, "mid2", audio=True, label=1),
    *look("audio_attn", "audio_to_video_attn", AUDIO_HEADS, "mid3", audio=False, label=2),
    *look("video_attn", "video_to_audio_attn", VIDEO_HEADS, "mid3", audio=True, label=2),
    Site("hook_mlp_out", "tokens", "ff", "output"),
    Site("hook_mlp_out_audio", "audio", "audio_ff", "output"),
    Site("hook_resid_post", "tokens", "", "output", item=0),
    Site("hook_resid_post_audio", "audio", "", "output", item=1),
)


@register
class LTX2(LTX):
    """Packs and decodes latents as LTX-Video does."""

    family = "LTX-2"
    classes = ("LTX2VideoTransformer3DModel",)
    stacks = (Stack("transformer_blocks", BLOCK),)
    ends = (
        Site("hook_embed", "tokens", "proj_in", "output"),
        Site("hook_embed_audio", "audio", "audio_proj_in", "output"),
        Site("hook_time_emb", "vector", "time_embed", "output", item=1),
    )
    recalls = ("prepare_audio_latents",)
    needs = OTHER_GUIDANCE
    notes = (
        "names of the audio stream end in _audio; hook_x_t, hook_x0hat and hook_model_out are the video's; a replay from "
        "another x_t keeps the audio's state; classifier-free guidance only; patch sizes of 1 only"
    )

    def refuses_call(self, pipe: Any, call: Mapping[str, Any]) -> str | None:
        """Two of the pipeline's guidances, both on by default, run forwards in which parts of the blocks are left out."""
        given = {name: call.get(name) or 0 for name in OTHER_GUIDANCE}
        if all(given[name] <= off for name, off in OTHER_GUIDANCE.items()):
            return None
        off = ", ".join(f"{name}={value}" for name, value in OTHER_GUIDANCE.items())
        return f"spatio-temporal and modality guidance run parts of the blocks only, so that names would be missing: give {off}"

    def returned(self, pipe: Any, latents: Tensor) -> Tensor:
        return scaled(pipe, latents)
