"""A constructed video transformer that computes one thing in known places: a two-hop road and a road of its own.

Prompt -> cross-attention of block 0, written at the cells A -> self-attention of block 2, which reads A and writes at B -> output
at B. And prompt -> cross-attention of block 1, written at C -> output at C. Every other part of every block writes zeros.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.families import tiny

SIZE = {"height": 64, "width": 64, "num_frames": 9, "max_sequence_length": 12}  # 3 x 4 x 4 tokens of 16 x 16 pixels
BOXES = {"a": [0, 0, 16, 16], "b": [32, 32, 48, 48], "c": [48, 0, 64, 16]}
FIRST, SECOND, THIRD = 0, 1, 2  # channels of the residual stream: the message at A, what B reads of it, the message at C


def cells(name: str) -> torch.Tensor:
    """The tokens of a box, bool ``[48]``."""
    left, top, _, _ = BOXES[name]
    mask = torch.zeros(3, 4, 4, dtype=torch.bool)
    mask[:, top // 16, left // 16] = True
    return mask.flatten()


class Writes(nn.Module):
    """Attention that reads one channel of its source, at some tokens, and writes it to a channel at others."""

    def __init__(self, heads: int, read=None, at=None, channel=None, direction=None):
        super().__init__()
        self.heads, self.read, self.at, self.channel, self.direction = heads, read, at, channel, direction

    def forward(self, hidden, text=None, mask=None, rotary=None):
        source = hidden if text is None else text
        batch, count, width = hidden.shape
        q = torch.zeros(batch, self.heads, count, width // self.heads)
        k = torch.zeros(batch, self.heads, source.shape[1], width // self.heads)
        v = torch.zeros_like(k)
        if self.at is not None:
            value = source[..., FIRST] if text is None else source @ self.direction
            v[..., 0] = value[:, None]
            if self.read is not None:
                q[..., 0] = 1.0
                k[..., 0] = 1e4 * self.read
        z = F.scaled_dot_product_attention(q, k, v)
        out = torch.zeros(batch, count, width)
        if self.at is not None:
            out[:, self.at, self.channel] = z[:, 0, self.at, 0]
        return out


class Zero(nn.Module):
    """An MLP that writes nothing."""

    def forward(self, hidden):
        return 0 * hidden


def pipeline():
    """The constructed pipeline, with the text encoder, VAE and scheduler of a tiny one."""
    pipe = tiny.build("wan2.1")
    model = pipe.transformer
    heads, width = model.config.num_attention_heads, model.config.num_attention_heads * model.config.attention_head_dim
    direction = torch.randn(width, generator=torch.Generator().manual_seed(3))
    plan = {
        (0, "attn2"): Writes(heads, None, cells("a"), FIRST, direction),
        (1, "attn2"): Writes(heads, None, cells("c"), THIRD, direction),
        (2, "attn1"): Writes(heads, cells("a").float(), cells("b"), SECOND),
    }  # fmt: skip
    with torch.no_grad():
        for parameters in (model.patch_embedding, model.condition_embedder.time_proj, model.proj_out):
            for weight in parameters.parameters():
                weight.zero_()
        model.proj_out.weight[:, [SECOND, THIRD]] = 1.0
        model.scale_shift_table.zero_()
        model.norm_out = nn.Identity()
        for number, block in enumerate(model.blocks):
            block.scale_shift_table.zero_()
            block.scale_shift_table[:, [2, 5]] = 1.0  # the gates
            block.norm1, block.norm2, block.norm3, block.ffn = nn.Identity(), nn.Identity(), nn.Identity(), Zero()
            for name in ("attn1", "attn2"):
                setattr(block, name, plan.get((number, name), Writes(heads)))
    return pipe


def model() -> HookedVideoPipeline:
    """It, hooked, with the sizes that the boxes are drawn for."""
    return HookedVideoPipeline(pipeline(), "planted", SIZE)
