"""Wan 2.1, Wan 2.2 (two experts), TI2V-5B, and the models built from the same blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from cos_interp.interp.families import register
from cos_interp.interp.families.adapter import Adapter, Site, Stack
from cos_interp.interp.families.conditions import Conditions, each_row
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

    def prepares_each(self, pipe: Any) -> bool:
        return hasattr(pipe.config, "expand_timesteps")

    def prepare_each(self, pipe: Any, call: Mapping[str, Any]) -> Conditions:
        """Each image, and last image, with its own generator, as the pipeline does for one."""
        if not self.prepares_each(pipe):
            return super().prepare_each(pipe, call)
        images, lasts = call["image"], each_row(call.get("last_image"), len(call["image"]))
        generators = each_row(call.get("generator"), len(images))
        rows = []
        for row, (image, last, generator) in enumerate(zip(images, lasts, generators, strict=True)):
            pixels = [
                None
                if frame is None
                else pipe.video_processor.preprocess(frame, height=call["height"], width=call["width"]).float()
                for frame in (image, last)
            ]
            latents = None if call.get("latents") is None else call["latents"][row : row + 1]
            rows.append(
                pipe.prepare_latents(
                    pixels[0], 1, pipe.vae.config.z_dim, call["height"], call["width"], call["num_frames"], torch.float32,
                    pipe._execution_device, generator, latents, *pixels[1:],
                )
            )  # fmt: skip
        joined = [torch.cat(parts) for parts in zip(*rows, strict=True)]
        if pipe.config.expand_timesteps:  # TI2V-5B: the last item is one mask for all rows
            joined[-1] = rows[0][-1]
        return Conditions(tuple(joined), self._seen(pipe, images, lasts))

    def _seen(self, pipe: Any, images: list[Any], lasts: list[Any]) -> dict[str, Any]:
        """What the transformer is told of the images: Wan 2.1's embedding of each, one after the other."""
        if getattr(self.expert(pipe).config, "image_dim", None) is None:
            return {}
        each = [image if last is None else [image, last] for image, last in zip(images, lasts, strict=True)]
        with torch.no_grad():
            rows = torch.cat([pipe.encode_image(one, pipe._execution_device) for one in each])
        return {"encoder_hidden_states_image": rows.to(self.expert(pipe).dtype)}


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

    def rereads(self, transformer: Transformer, layer: int) -> bool:
        """The hints are made of the embedded latents."""
        return True

    def one_video(self, pipe: Any, call: Mapping[str, Any]) -> bool:
        return True


@register
class Animate(Wan):
    family = "Wan Animate"
    classes = ("WanAnimateTransformer3DModel",)

    def breaks(self, transformer: Transformer) -> set[int]:
        """The face adapter adds its output after some blocks."""
        return {layer + 1 for layer in range(0, len(transformer.blocks), transformer.config.inject_face_latents_blocks)}
