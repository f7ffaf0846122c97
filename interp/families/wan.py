"""Wan 2.1, Wan 2.2 (two experts), TI2V-5B, and the models built from the same blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cos_interp.interp.families import register
from cos_interp.interp.families.adapter import Adapter, Site, Stack
from cos_interp.interp.families.shapes import cross_block
from cos_interp.interp.families.sites import Transformer


@register
class Wan(Adapter):
    family = "Wan"
    classes = ("WanTransformer3DModel",)
    stacks = (Stack("blocks", cross_block(mlp="ffn", image=True)),)
    ends = (
        Site("hook_embed", "embed", "patch_embedding", "output"),
        Site("hook_time_emb", "vector", "condition_embedder.time_embedder", "output"),
    )
    apart = ("LucyEdit",)


@register
class SkyReels(Wan):
    """Differs in conditioning only."""

    family = "SkyReels-V2"
    classes = ("SkyReelsV2Transformer3DModel",)


@register
class ChronoEdit(Wan):
    """Differs in conditioning only."""

    family = "ChronoEdit"
    classes = ("ChronoEditTransformer3DModel",)


@register
class VACE(Wan):
    family = "Wan VACE"
    classes = ("WanVACETransformer3DModel",)
    recalls = ("prepare_video_latents", "prepare_masks")

    def breaks(self, transformer: Transformer) -> set[int]:
        """A control hint is added after some blocks."""
        return {layer + 1 for layer in transformer.config.vace_layers}

    def rereads(self, transformer: Transformer, layer: int) -> bool:
        """The hints are made of the embedded latents."""
        return True

    def one_video(self, pipe: Any, call: Mapping[str, Any]) -> bool:
        return True


@register
class Animate(Wan):
    family = "Wan Animate"
    classes = ("WanAnimateTransformer3DModel",)
    recalls = ("prepare_reference_image_latents", "prepare_pose_latents", "prepare_prev_segment_cond_latents")

    def breaks(self, transformer: Transformer) -> set[int]:
        """The face adapter adds its output after some blocks."""
        return {layer + 1 for layer in range(0, len(transformer.blocks), transformer.config.inject_face_latents_blocks)}
