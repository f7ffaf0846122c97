"""The organism's language: a closed vocabulary, a word tokenizer and a small frozen text encoder.

The encoder is a UMT5 encoder with random weights that is never trained: it gives every word a distinct vector that
also depends on its neighbours, which is all the transformer's cross-attention needs. The card says so.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from cos_interp.organism import shapes
from cos_interp.tasks import grid

WORDS = (
    "go to the goal slide board left right up down move behind wall roll ball forward backward above below of next box"
).split() + [*grid.COLOURS, "square", "circle", "triangle"]
SPECIAL = ("<pad>", "</s>", "<unk>")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Lower-case words; anything else becomes ``<unk>``; ``</s>`` closes the prompt."""
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def vocabulary() -> int:
    """How many tokens there are."""
    return len(SPECIAL) + len(WORDS)


def build_encoder(seed: int = 0) -> UMT5EncoderModel:
    torch.manual_seed(seed)
    return UMT5EncoderModel(UMT5Config(vocab_size=vocabulary(), **shapes.TEXT)).eval()


class PromptTable:
    """Prompt embeddings without padding, computed once a prompt."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, encoder: PreTrainedModel):
        self.tokenizer, self.encoder = tokenizer, encoder
        self.embed = lru_cache(maxsize=None)(self._embed)

    @torch.no_grad()
    def _embed(self, prompt: str) -> torch.Tensor:
        """``[tokens, text_dim]``."""
        tokens = self.tokenizer(prompt, return_tensors="pt")
        return self.encoder(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state[0]
