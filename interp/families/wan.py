"""Wan 2.1, Wan 2.2 (two experts), TI2V-5B, and the models built from the same blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

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

    def prepare_each(self, pipe: Any, call: Mapping[str, Any]) -> tuple[Any, ...]:
        """Each image with its own generator, as the pipeline does for one."""
        if not hasattr(pipe.config, "expand_timesteps"):
            return super().prepare_each(pipe, call)
        images = call["image"]
        height, width, generators, given = (call.get(name) for name in ("height", "width", "generator", "latents"))
        rows = []
        for row, (image, generator) in enumerate(zip(images, generators or [None] * len(images), strict=True)):
            pixels = pipe.video_processor.preprocess(image, height=height, width=width).float()
            latents = None if given is None else given[row : row + 1]
            rows.append(
                pipe.prepare_latents(
                    pixels, 1, pipe.vae.config.z_dim, height, width, call["num_frames"], torch.float32, pipe._execution_device,
                    generator, latents,
                )
            )  # fmt: skip
        joined = [torch.cat(parts) for parts in zip(*rows, strict=True)]
        if pipe.config.expand_timesteps:  # TI2V-5B: the last item is one mask for all rows
            joined[-1] = rows[0][-1]
        return tuple(joined)


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

    def breaks(self, transformer: Transformer) -> set[int]:
        """A control hint is added after some blocks."""
        return {layer + 1 for layer in transformer.config.vace_layers}

    def one_video(self, pipe: Any, call: Mapping[str, Any]) -> bool:
        return True


@register
class Animate(Wan):
    family = "Wan Animate"
    classes = ("WanAnimateTransformer3DModel",)

    def breaks(self, transformer: Transformer) -> set[int]:
        """The face adapter adds its output after some blocks."""
        return {layer + 1 for layer in range(0, len(transformer.blocks), transformer.config.inject_face_latents_blocks)}
