"""Attention without some keys for some queries, against a dense mask of -inf."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cos_interp.interp import HookedVideoPipeline, InterpError, tiny
from cos_interp.interp.run.cutting import Cutting, cut_attention

TEXT, VIDEO, HEADS, WIDTH = 3, 12, 4, 8


def attention(kind: str):
    """An attention of text and then video, with a mask of one form or another."""
    draw = torch.Generator().manual_seed(0)
    length = TEXT + VIDEO
    heads = 2 if kind == "grouped" else HEADS
    normal = lambda *shape: torch.randn(1, *shape, generator=draw, dtype=torch.float64)
    a = {"query": normal(HEADS, length, WIDTH), "key": normal(heads, length, WIDTH), "value": normal(heads, length, WIDTH)}
    masks = {
        "padded": (torch.arange(length) != 1)[None, None, None],
        "pairs": (torch.rand(1, 1, length, length, generator=draw) < 0.8) | torch.eye(length, dtype=torch.bool),
        "added": normal(HEADS, length, length),
        "flat": normal(length, length)[0],
    }
    more = {"attn_mask": masks[kind]} if kind in masks else {}
    return a | more | ({"enable_gqa": True} if kind == "grouped" else {}) | ({"scale": 0.3} if kind == "scaled" else {})


@pytest.mark.parametrize("kind", ["plain", "padded", "pairs", "added", "flat", "grouped", "scaled"])
def test_attention_without_some_keys_is_one_with_a_mask_of_all_pairs(kind):
    a, place = attention(kind), lambda length: slice(length - VIDEO, length)
    first, later = torch.arange(VIDEO) < 4, torch.arange(VIDEO) >= 8
    some, other = torch.arange(VIDEO) % 3 == 0, torch.arange(VIDEO) == 5
    cut = torch.zeros(TEXT + VIDEO, TEXT + VIDEO, dtype=torch.bool)
    cut[TEXT:, TEXT:] = first[:, None] & some[None] | later[:, None] & other[None]
    mask = a.get("attn_mask")
    added = torch.zeros(cut.shape, dtype=torch.float64) if mask is None else mask
    added = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -torch.inf) if added.dtype == torch.bool else added
    expected = F.scaled_dot_product_attention(**{**a, "attn_mask": added.masked_fill(cut, -torch.inf)})
    torch.testing.assert_close(cut_attention(a, [(first, some), (later, other)], place), expected, atol=1e-12, rtol=1e-12)


def test_queries_to_which_nothing_would_be_left_see_all_and_a_causal_attention_is_refused():
    a, every = attention("plain"), torch.ones(TEXT + VIDEO, dtype=torch.bool)
    whole = lambda length: slice(0, length)
    assert torch.equal(cut_attention(a, [(every, every)], whole), F.scaled_dot_product_attention(**a))
    with pytest.raises(InterpError, match="causal"):
        cut_attention(a | {"is_causal": True}, [(every, every)], whole)


def test_rows_that_see_all_keep_their_bits_beside_a_row_that_does_not():
    model, call = HookedVideoPipeline.from_pipeline(tiny.build("cogvideox")), tiny.call("cogvideox", steps=2)
    call |= {"prompt": ["a", "b"], "negative_prompt": ["c", "c"], "seed": [0, 1]}
    plain = model.run(**call)
    tokens = model.token_grid(plain.latents).tokens
    some = torch.arange(tokens) < 4
    for cut_row in (0, 1):
        unseen = lambda step, layer, row, cut_row=cut_row: [(~some, some)] if row == cut_row else ()
        found = model.run_directed(lambda inner, unseen=unseen: Cutting(inner, unseen), **call).latents
        assert torch.equal(found[1 - cut_row], plain.latents[1 - cut_row])
        assert not torch.equal(found[cut_row], plain.latents[cut_row])
