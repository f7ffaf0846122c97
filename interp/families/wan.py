"""Wan 2.1, Wan 2.2 (two experts), TI2V-5B, and the models built from the same blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cos_interp.interp.families import decoding, register
from cos_interp.interp.families.adapter import PICTURE_HIDDEN, Adapter, Site, Stack
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

    def given(self, config: Any, latents: Tensor, prepared: tuple[Any, ...]) -> Tensor:
        """TI2V-5B's picture, in the place of the first frame; mask and condition as the pipeline mixes them in."""
        if not (count := self.fixed(prepared)):
            return latents
        return torch.cat(
            [prepared[1][:, :, :count].to(latents).expand(len(latents), -1, -1, -1, -1), latents[:, :, count:]], dim=2
        )

    def fixed(self, prepared: tuple[Any, ...]) -> int:
        """TI2V-5B prepares latents, condition, and a mask that is 0 in given frames."""
        return int((prepared[2][0, 0, :, 0, 0] == 0).sum()) if len(prepared) == 3 else 0


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

    def unlike_video(self, config: Any) -> str | None:
        return PICTURE_HIDDEN

    def returned(self, pipe: Any, latents: Tensor) -> Tensor:
        """In the autoencoder's scale (diffusers 0.42)."""
        return decoding.destandardized(pipe, latents)

    def decode(self, pipe: Any, latents: Tensor) -> Tensor:
        """Without the picture's latent frame."""
        return decoding.by_statistics(pipe, latents[:, :, 1:])
