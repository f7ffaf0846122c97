"""Training as if prompts were padded to any length, at the cost of one padding token.

Wan pipelines pad prompt embeddings with zeros to ``max_sequence_length`` and attend to the padding. All padding tokens
have the same key and value, so n of them act like one whose attention logit is larger by log n. Training draws n at
random, and the trained model then answers alike with the pipeline's default of 512 and with the organism's own 16.
"""

from __future__ import annotations

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttnProcessor

LENGTHS = (16, 32, 64, 226, 512)
SHOWN = 10  # tokens held in training: the longest prompt (9) and one padding token; one size, so that it compiles once


class BiasedProcessor(WanAttnProcessor):
    """Wan's attention with an additive bias on the keys, ``[batch, 1, 1, keys]``, set before each call."""

    bias: torch.Tensor | None = None

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        return super().__call__(attn, hidden_states, encoder_hidden_states, self.bias, rotary_emb)


def install(model: WanTransformer3DModel) -> BiasedProcessor:
    """Give all cross-attentions one shared processor with a bias."""
    processor = BiasedProcessor()
    for block in model.blocks:
        block.attn2.set_processor(processor)
    return processor


def pad(embeddings: list[torch.Tensor], lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack prompts ``[tokens_i, dim]`` as if row i were padded with zeros to ``lengths[i]``.

    Returns embeddings ``[batch, SHOWN, dim]`` and the bias ``[batch, 1, 1, SHOWN]``.
    """
    size = SHOWN
    stacked = torch.stack([torch.cat([e, e.new_zeros(size - len(e), e.shape[1])]) for e in embeddings])
    bias = stacked.new_zeros(len(embeddings), 1, 1, size)
    for row, (embedding, length) in enumerate(zip(embeddings, lengths, strict=True)):
        shown = size - len(embedding)
        bias[row, ..., len(embedding) :] = torch.tensor((length - len(embedding)) / shown).log()
    return stacked, bias
