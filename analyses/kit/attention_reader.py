"""Queries and keys of attention calls, given out one call at a time, so that no full pattern of a large model is held."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cos_interp.analyses.kit.attention_maths import Grid
from cos_interp.interp.errors import InterpError
from cos_interp.interp.hooking import FwdHook
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.clock import Hook
from cos_interp.interp.selecting import known_layers

MOST_QUERIES = 512  # of larger grids every n-th token is read as a query
# (hook, queries [head, frame, row, col, d], keys [head, key, d]): of one video
Use = Callable[[Hook, Tensor, Tensor], None]


def text_attention(model: HookedVideoPipeline, layer: int) -> tuple[str, str] | None:
    """The names of the queries of the video and of the keys of the text in a layer: of its attention to the text or, where
    both are on one axis, of their joint attention. None where a layer has neither, or its second stream is no text any more."""
    engine, block = next(iter(model.engines.values())), f"blocks.{layer}"
    if f"{block}.cross_attn.hook_k" in engine.points:
        return f"{block}.cross_attn.hook_q", f"{block}.cross_attn.hook_k"
    decodes = any(layer >= start for start in engine.adapter.breaks(engine.module))
    if f"{block}.attn.hook_k_text" in engine.points and not decodes:
        return f"{block}.attn.hook_q", f"{block}.attn.hook_k_text"
    return None


def own_attention(model: HookedVideoPipeline, layer: int) -> tuple[str, str]:
    """The names of the queries and keys of the video in a layer. InterpError where its attention has none."""
    names = (f"blocks.{layer}.attn.hook_q", f"blocks.{layer}.attn.hook_k")
    if names[0] not in next(iter(model.engines.values())).points:
        raise InterpError(f"{model.name}: block {layer} has no queries and keys to read: its attention is linear")
    return names


def query_key_hooks(
    model: HookedVideoPipeline, site: str, layers: Sequence[int], steps: Sequence[int], use: Use
) -> list[FwdHook]:
    """Read-only hooks that call ``use`` once a (layer, step) with the q and k of ``attn``, or of the attention to the ``text``
    (:func:`text_attention`; layers without one are passed over).

    Conditional branch, first video of the batch. Reading leaves the run bit-identical.
    """
    held: dict[tuple, Tensor] = {}
    when = f"step=[{','.join(map(str, steps))}], branch=cond"

    def keep(act: Tensor, hook: Hook) -> None:
        held[hook.layer, hook.step] = act[0].movedim(-2, 0)

    def give(act: Tensor, hook: Hook) -> None:
        keys = act[0].movedim(-2, 0)
        if site == "text" and keys.ndim == 4:  # the same text for every frame, with which the batch was folded
            keys = keys[:, 0]
        use(hook, held.pop((hook.layer, hook.step)), keys.flatten(1, -2))

    hooks: list[FwdHook] = []
    for layer in checked_layers(model, layers):
        names = own_attention(model, layer) if site == "attn" else text_attention(model, layer)
        if names is not None:
            hooks += [(f"{names[0]} @ {when}", keep), (f"{names[1]} @ {when}", give)]
    return hooks


def checked_layers(model: HookedVideoPipeline, layers: Sequence[int] | None) -> list[int]:
    """The layers asked for, all by default. InterpError for a layer that the model does not have."""
    return list(known_layers(layers, model.layers))


def some_queries(grid: Grid) -> Tensor:
    """Token numbers that are read as queries: all of a small grid, evenly spread ones of a large one."""
    tokens = grid[0] * grid[1] * grid[2]
    stride = -(-tokens // MOST_QUERIES)
    return torch.arange(0, tokens, stride)
