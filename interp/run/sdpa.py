"""Attention internals (q, k, v, pattern, z), served around ``scaled_dot_product_attention`` while the model runs as it is.

The pattern is materialised only when somebody asks for it; reading it leaves the run bit-identical.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

INNER = {f"hook_{image}{letter}" for image in ("", "image_") for letter in ("q", "k", "v", "pattern", "z")}
_SIGNATURE = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")

# (the model's tensor, rows of the forward's batch that it covers) -> its replacement or None
Server = Callable[[Tensor, slice], Tensor | None]


def attention_pattern(query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None, causal: bool) -> Tensor:
    """``softmax(q k^T * scale + mask)``, ``[batch, head, query, key]``; scale defaults to ``1 / sqrt(d_head)``."""
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf"))
    if mask is None:
        return scores.softmax(-1)
    scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    nothing = (scores == float("-inf")).all(-1, keepdim=True)  # a query that may look at nothing, as padding
    return scores.masked_fill(nothing, 0.0).softmax(-1).masked_fill(nothing, 0.0) if nothing.any() else scores.softmax(-1)


class InAttention(TorchFunctionMode):
    """While active, has a subclass compute the attention of some modules, whichever runs.

    ``image``: modules that attend to an image as well, and whether they do so in their first or second call (0 or 1).
    ``per_sample``: the family runs its attention once for every row of the batch (Mochi), so that each call covers one row.
    """

    def __init__(self, modules: Iterable[nn.Module], image: Mapping[nn.Module, int], per_sample: bool):
        super().__init__()
        self.modules, self.image, self.per_sample = list(modules), image, per_sample
        self.running: list[list[Any]] = []  # [module, calls of SDPA so far]
        self.handles: list[Any] = []

    def attend(self, module: nn.Module, a: dict[str, Any], image: bool, rows: slice) -> Tensor:
        """What ``scaled_dot_product_attention(**a)`` of a module is to give, to an ``image`` or not; ``rows`` of the forward."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        for module in self.modules:
            self.handles += [
                module.register_forward_pre_hook(self._begins),
                module.register_forward_hook(self._ends, always_call=True),
            ]
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for handle in self.handles:
            handle.remove()
        if self.running:  # left without its hook
            self.running.clear()
            super().__exit__(kind, error, trace)

    def _begins(self, module: nn.Module, *_: Any) -> None:
        """An attention runs. Outside of one, each of a forward's many functions would go through the mode for nothing."""
        if not self.running:
            super().__enter__()
        self.running.append([module, 0])

    def _ends(self, *_: Any) -> None:
        self.running.pop()
        if not self.running:
            super().__exit__(None, None, None)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not F.scaled_dot_product_attention or not self.running:
            return func(*args, **(kwargs or {}))
        bound = dict(zip(_SIGNATURE, args, strict=False)) | (kwargs or {})
        module, calls = self.running[-1]
        self.running[-1][1] += 1
        rows = slice(calls, calls + 1) if self.per_sample else slice(0, bound["query"].shape[0])
        return self.attend(module, bound, self.image.get(module) == calls, rows)


class ServeAttention(InAttention):
    """Hands the wanted inner values of the running attention module to their servers.

    ``servers``: for each attention module, a server for each key of :data:`INNER` that is wanted.
    """

    def __init__(self, servers: Mapping[nn.Module, Mapping[str, Server]], image: Mapping[nn.Module, int], per_sample: bool):
        super().__init__(servers, image, per_sample)
        self.servers = servers
        self.served: set[tuple[nn.Module, str]] = set()

    def attend(self, module: nn.Module, a: dict[str, Any], image: bool, rows: slice) -> Tensor:
        servers = self.servers[module]

        def serve(site: str, value: Tensor) -> Tensor:
            key = site.replace("hook_", "hook_image_") if image else site
            if key not in servers:
                return value
            self.served.add((module, key))
            new = servers[key](value, rows)
            return value if new is None else new

        a["query"] = serve("hook_q", a["query"])
        a["key"], a["value"] = serve("hook_k", a["key"]), serve("hook_v", a["value"])
        if ("hook_image_pattern" if image else "hook_pattern") not in servers:
            return serve("hook_z", F.scaled_dot_product_attention(**a))
        keys, values = repeated(a["key"], a["query"], a), repeated(a["value"], a["query"], a)
        pattern = attention_pattern(a["query"], keys, a.get("attn_mask"), a.get("scale"), bool(a.get("is_causal", False)))
        served = serve("hook_pattern", pattern)
        # an unchanged pattern keeps the fused kernel, so that an identity edit stays bit-identical; one that a gradient is
        # taken of must be what the values are weighed by
        same = served is pattern or (not served.requires_grad and torch.equal(served, pattern))
        return serve("hook_z", F.scaled_dot_product_attention(**a) if same else served @ values)


def repeated(value: Tensor, query: Tensor, arguments: Mapping[str, Any]) -> Tensor:
    """Keys or values with one head for each head of the queries, where attention is grouped."""
    if not arguments.get("enable_gqa"):
        return value
    return value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)
