"""One transformer call under nnsight: read, edit, skip.

Every call of the denoising loop is a trace of its own. That removes nnsight's iteration numbers from the picture, and with
them its silent ways of binding a read to the wrong call; inside the one call the visits are sorted into execution order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import nnsight
from torch import Tensor, nn

from interp import sdpa, wan
from interp.errors import InterpError
from interp.views import from_axes, to_axes

# receives the activation with named axes, returns its replacement or None
Visitor = Callable[[Tensor], Tensor | None]


@dataclass(frozen=True)
class Skip:
    """Start the call at block ``layer``: earlier blocks do not run, their result is ``residual`` ``[batch, token, d]``."""

    layer: int
    residual: Tensor


class ExpertEngine:
    """One transformer, wrapped once. Not for concurrent use."""

    def __init__(self, name: str, transformer: nn.Module):
        if hasattr(transformer, "_orig_mod") or getattr(transformer, "_compiled_call_impl", None) is not None:
            raise InterpError(f"{name} is compiled; hooks do not fire in compiled code: load it without torch.compile")
        if getattr(transformer, "is_cache_enabled", False):
            raise InterpError(f"{name} has a block cache, which skips layers: call {name}.disable_cache() first")
        self.name, self.module = name, transformer
        self.points = wan.points(transformer)
        attention = {type(m): sdpa.AttentionEnvoy for m in transformer.modules() if sdpa.is_attention(m)}
        self.env = nnsight.NNsight(transformer, envoys=attention)
        self.block_calls = 0  # blocks run so far, each row of a batch counted

    @property
    def layers(self) -> int:
        return len(self.module.blocks)

    def envoy(self, path: str) -> nnsight.Envoy:
        found = self.env
        for part in filter(None, path.split(".")):
            found = found[int(part)] if part.isdigit() else getattr(found, part)
        return found

    def __call__(self, args: tuple, kwargs: Mapping[str, Any], visits: Mapping[str, Visitor], skip: Skip | None = None) -> tuple:
        """Run the transformer; ``visits`` maps hook names to visitors. Returns what the transformer returns."""
        hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        self.block_calls += hidden.shape[0] * (self.layers - (skip.layer if skip else 0))
        if not visits and skip is None:
            return self.module(*args, **kwargs)
        ordered = sorted((self.points[name] for name in visits), key=lambda p: p.order)
        grid = wan.token_grid(self.module, hidden)
        for point in ordered:
            if point.key.startswith("source."):
                _ = self.envoy(point.path).source  # installed before the forward, else the first trace misses it
        inner = [p for p in ordered if p.key in vars(sdpa.AttentionEnvoy)]
        wanted = {f"{self.envoy(p.path).path}.{p.key}" for p in inner}
        envoys = {self.envoy(p.path).path: self.envoy(p.path) for p in inner}
        plan = [(p, visits[p.name]) for p in ordered]
        with sdpa.ServeAttention(envoys, wanted), self.env.trace(*args, **kwargs) as tracer:
            self._skip(skip)
            for point, visitor in plan:
                self._visit(point, visitor, grid)
            out = tracer.result.save()
        return out

    def _skip(self, skip: Skip | None) -> None:
        for layer in range(skip.layer if skip else 0):
            self.env.blocks[layer].skip(skip.residual)

    def _visit(self, point: wan.Point, visitor: Visitor, grid: Any) -> None:
        owner, key = self.envoy(point.path), point.key
        if key.startswith("source."):
            owner, key = getattr(owner.source, key.removeprefix("source.")), "output"
        value = getattr(owner, key)
        tensor = value if point.item is None else value[point.item]
        new = visitor(to_axes(tensor, point.kind, grid))
        if new is None:
            return
        new = from_axes(new, point.kind)
        if new.dtype != tensor.dtype or new.shape != tensor.shape:
            raise InterpError(
                f"{point.name}: the replacement is {new.dtype} {tuple(new.shape)}, the model needs {tensor.dtype} "
                f"{tuple(tensor.shape)} in its own layout: return the same dtype and shape that were given"
            )
        if point.item is not None:
            new = (*value[: point.item], new, *value[point.item + 1 :])
        setattr(owner, key, new)
