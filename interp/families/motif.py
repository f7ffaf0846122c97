"""Motif-Video: dual-stream blocks, single-stream encoder blocks, and single-stream decoder blocks that start afresh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from cos_interp.interp.families import register
from cos_interp.interp.families.adapter import Adapter, Block, Site, Stack, has
from cos_interp.interp.families.conditions import Conditions, each_row
from cos_interp.interp.families.shapes import joint_block, parallel_block
from cos_interp.interp.families.sites import Transformer


def with_cross(block: Block) -> Block:
    """The block with its optional extra text cross-attention, after the joint attention."""
    there = has("cross_attn")
    place = next(i for i, site in enumerate(block) if site.name == "hook_attn_out_text") + 1
    out = Site("hook_cross_attn_out", "tokens", "cross_attn", "output", wanted=there)
    return (*block[:place], out, *block[place:])


DUAL = with_cross(joint_block(attn="attn", text="last"))
FIRST_FRAME = "_prepare_first_frame_conditioning"
SINGLE = with_cross(parallel_block())


@register
class MotifVideo(Adapter):
    family = "Motif-Video"
    classes = ("MotifVideoTransformer3DModel",)
    stacks = (Stack("transformer_blocks", DUAL), Stack("single_transformer_blocks", SINGLE))
    ends = (Site("hook_time_emb", "vector", "time_text_embed", "output"), Site("hook_embed", "tokens", "x_embedder", "output"))
    recalls = (FIRST_FRAME,)
    picture_first = True
    notes = "in decoder blocks the second stream (_text) is the encoder's video"

    def breaks(self, transformer: Transformer) -> set[int]:
        """The first decoder block: it starts from the embedded latents again."""
        layers = len(transformer.transformer_blocks) + len(transformer.single_transformer_blocks)
        decoders = transformer.config.num_decoder_layers
        return {layers - decoders} if decoders else set()

    def rereads(self, transformer: Transformer, layer: int) -> bool:
        """The decoder starts from the embedded latents again."""
        return any(layer < decoder for decoder in self.breaks(transformer))

    def last_text(self, transformer: Transformer) -> set[int]:
        """The last encoder block: the decoder reads its video, not its text."""
        return {layer - 1 for layer in self.breaks(transformer)}

    def prepares_each(self, pipe: Any) -> bool:
        return hasattr(pipe, FIRST_FRAME)

    def prepare_each(self, pipe: Any, call: Mapping[str, Any]) -> Conditions:
        """Each image with its own generator, as the pipeline does for one: first its noise, then the picture's latent."""
        if not self.prepares_each(pipe):
            return super().prepare_each(pipe, call)
        size, count = {name: call[name] for name in ("height", "width")}, len(call["image"])
        device, dtype = pipe._execution_device, pipe.transformer.dtype
        latents, first = [], []
        for row, generator in enumerate(each_row(call.get("generator"), count)):
            given = None if call.get("latents") is None else call["latents"][row : row + 1]
            picture = pipe.video_processor.preprocess_video([call["image"][row]], **size).permute(0, 2, 1, 3, 4)
            latents.append(
                pipe.prepare_latents(
                    1, pipe.vae.config.z_dim, *size.values(), call["num_frames"], dtype, device, generator, given
                )
            )
            with torch.no_grad():
                first.append(getattr(pipe, FIRST_FRAME)(picture.to(device, dtype), latents[-1], True, generator))
        joined = tuple(None if parts[0] is None else torch.cat(parts) for parts in zip(*first, strict=True))
        return Conditions((torch.cat(latents),), encoded={FIRST_FRAME: joined})
