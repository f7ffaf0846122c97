"""Attention without some keys for some queries, at the cost of attention: no pattern and no mask of all pairs is made.

Queries that do not see the same keys are attended one group after the other, each over the keys that it sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cos_interp.interp.errors import InterpError
from cos_interp.interp.families.sites import Point
from cos_interp.interp.run.clock import Call
from cos_interp.interp.run.director import Around, Director
from cos_interp.interp.run.engine import ExpertEngine
from cos_interp.interp.run.sdpa import InAttention
from cos_interp.interp.views import TokenGrid, stretch

# some queries, bool [token] over the video's, and the keys among the video's tokens that these do not see, bool [token]
Unseen = Sequence[tuple[Tensor, Tensor]]
SITE = "attn.hook_pattern"


def cut_attention(a: Mapping[str, Any], unseen: Unseen, where: Callable[[int], slice]) -> Tensor:
    """``scaled_dot_product_attention(**a)`` ``[batch, head, query, d_head]`` in which some queries do not see some keys.

    Each is a softmax over the keys that are left, as a mask of -inf gives. ``where``: the place of the video's tokens among so
    many queries or keys. Queries of which no key would be left see all. InterpError for a causal attention.
    """
    if a.get("is_causal"):
        raise InterpError("this attention is causal: no keys are cut from it")
    query, out = a["query"], None
    rest = torch.ones(query.shape[-2], dtype=torch.bool, device=query.device)
    for queries, keys in unseen:
        mine, left = torch.zeros_like(rest), torch.ones(a["key"].shape[-2], dtype=torch.bool, device=query.device)
        mine[where(len(mine))], left[where(len(left))] = queries.to(query.device), ~keys.to(query.device)
        if not bool(mine.any()) or not bool(left.any()):
            continue
        rest &= ~mine
        out = _put(out, a, mine, left)
    return F.scaled_dot_product_attention(**a) if out is None else _put(out, a, rest, None)


def _put(out: Tensor | None, a: Mapping[str, Any], queries: Tensor, keys: Tensor | None) -> Tensor:
    """The attention of some queries to some keys (None: all), in its place; ``out`` is made where there is none."""
    rows = queries.nonzero()[:, 0]
    seen = slice(None) if keys is None else keys.nonzero()[:, 0]
    part = {"query": a["query"][..., rows, :], "key": a["key"][..., seen, :], "value": a["value"][..., seen, :]}
    mask = a.get("attn_mask")
    if mask is not None:
        mask = mask if mask.shape[-2] == 1 else mask[..., rows, :]
        part["attn_mask"] = mask if mask.shape[-1] == 1 else mask[..., seen]
    found = F.scaled_dot_product_attention(**{**a, **part})
    out = found.new_empty(*a["query"].shape[:-1], found.shape[-1]) if out is None else out
    out[..., rows, :] = found
    return out


class CutAttention(InAttention):
    """While active, the rows of the running attentions see what is left to them.

    ``unseen``: for each attention module what each row of the forward does not see; ``where``: see :func:`cut_attention`.
    """

    def __init__(
        self,
        unseen: Mapping[nn.Module, Sequence[Unseen]],
        where: Mapping[nn.Module, Callable[[int], slice]],
        image: Mapping[nn.Module, int],
        per_sample: bool,
    ):
        super().__init__(unseen, image, per_sample)
        self.unseen, self.where = unseen, where
        self.cut: set[nn.Module] = set()

    def attend(self, module: nn.Module, a: dict[str, Any], image: bool, rows: slice) -> Tensor:
        each = self.unseen[module][rows]
        if image or not any(each):
            return F.scaled_dot_product_attention(**a)
        self.cut.add(module)
        cut = {row: cut_attention(_of_row(a, row), unseen, self.where[module]) for row, unseen in enumerate(each) if unseen}
        if len(cut) == len(each):
            return torch.cat(list(cut.values()))
        whole = F.scaled_dot_product_attention(**a)  # rows that see all have the bits that they have beside rows that do
        for row, found in cut.items():
            whole[row : row + 1] = found
        return whole


def _of_row(a: Mapping[str, Any], row: int) -> dict[str, Any]:
    """The arguments of an attention for one row of its batch."""
    batch = a["query"].shape[0]
    mine = lambda value: value[row : row + 1] if isinstance(value, Tensor) and value.ndim == 4 and len(value) == batch else value
    return {name: mine(value) for name, value in a.items()}


class Cutting(Around):
    """Another director, in a run in whose self-attentions some rows do not see some keys.

    ``unseen``: what a row of the batch does not see, by step, layer and row; nothing is cut where it gives none.
    """

    def __init__(self, inner: Director, unseen: Callable[[int, int, int], Unseen]):
        super().__init__(inner)
        self.unseen = unseen

    def call(self, calls: tuple[Call, ...], engine: ExpertEngine, kwargs: dict[str, Any]) -> Any:
        rows = range(kwargs["hidden_states"].shape[0] // len(calls))
        grid = engine.adapter.call_grid(engine.module, kwargs)
        unseen: dict[nn.Module, list[Unseen]] = {}
        where: dict[nn.Module, Callable[[int], slice]] = {}
        points: dict[nn.Module, Point] = {}
        for layer in range(engine.layers):
            each = [self.unseen(calls[0].step, layer, row) for row in rows]
            if any(each):
                point = engine.points[f"blocks.{layer}.{SITE}"]
                module = engine.module.get_submodule(point.path)
                unseen[module], points[module] = each * len(calls), point
                where[module] = _places(point.site.part or "lead", grid)
        with CutAttention(unseen, where, engine.image_calls, engine.adapter.per_sample_attention) as cutting:
            out = self.inner.call(calls, engine, kwargs)
        if missed := [point for module, point in points.items() if module not in cutting.cut]:
            raise engine.did_not_fire(missed[0])
        return out


def _places(part: str, grid: TokenGrid) -> Callable[[int], slice]:
    return lambda length: stretch(part, length, grid)
