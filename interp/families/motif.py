"""Motif-Video: dual-stream blocks, single-stream encoder blocks, and single-stream decoder blocks that start afresh."""

from __future__ import annotations

from cos_interp.interp.families import register
from cos_interp.interp.families.adapter import Adapter, Block, Site, Stack, has
from cos_interp.interp.families.shapes import joint_block, parallel_block
from cos_interp.interp.families.sites import Transformer


def with_cross(block: Block) -> Block:
    """The block with its optional extra text cross-attention, after the joint attention."""
    there = has("cross_attn")
    place = next(i for i, site in enumerate(block) if site.name == "hook_attn_out_text") + 1
    out = Site("hook_cross_attn_out", "tokens", "cross_attn", "output", wanted=there)
    return (*block[:place], out, *block[place:])


DUAL = with_cross(joint_block(attn="attn", text="last"))
SINGLE = with_cross(parallel_block())


@register
class MotifVideo(Adapter):
    family = "Motif-Video"
    classes = ("MotifVideoTransformer3DModel",)
    stacks = (Stack("transformer_blocks", DUAL), Stack("single_transformer_blocks", SINGLE))
    ends = (Site("hook_time_emb", "vector", "time_text_embed", "output"), Site("hook_embed", "tokens", "x_embedder", "output"))
    recalls = ("_prepare_first_frame_conditioning",)
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
