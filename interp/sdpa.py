"""Attention internals (q, k, v, pattern, z) as nnsight locations, served around ``scaled_dot_product_attention``.

The pattern is materialised only when somebody asks for it; reading it leaves the run bit-identical.
"""

from __future__ import annotations

import inspect
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from nnsight import Envoy
from nnsight.intervention.eproperty import eproperty
from torch import Tensor
from torch.overrides import TorchFunctionMode

SITES = ("hook_q", "hook_k", "hook_v", "hook_pattern", "hook_z")
_SIGNATURE = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


class AttentionEnvoy(Envoy):
    """An attention module whose inner values can be read and written in a trace, each ``[batch, head, token, d_head]``.

    The pattern is ``[batch, head, query, key]``. The ``image_`` ones belong to the separate image attention of Wan 2.1.
    """

    @eproperty(description="queries after norm and rotary embedding")
    def hook_q(self, value):
        return value

    @eproperty(description="keys after norm and rotary embedding")
    def hook_k(self, value):
        return value

    @eproperty(description="values")
    def hook_v(self, value):
        return value

    @eproperty(description="attention probabilities")
    def hook_pattern(self, value):
        return value

    @eproperty(description="per-head results, before the output projection")
    def hook_z(self, value):
        return value

    @eproperty(description="image attention: keys")
    def hook_image_k(self, value):
        return value

    @eproperty(description="image attention: values")
    def hook_image_v(self, value):
        return value

    @eproperty(description="image attention: probabilities")
    def hook_image_pattern(self, value):
        return value

    @eproperty(description="image attention: per-head results")
    def hook_image_z(self, value):
        return value


def attention_pattern(query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None, causal: bool) -> Tensor:
    """``softmax(q k^T * scale + mask)``, ``[batch, head, query, key]``; scale defaults to ``1 / sqrt(d_head)``."""
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf"))
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1)


class ServeAttention(TorchFunctionMode):
    """While active, offers the wanted locations of the running attention module to the trace."""

    def __init__(self, envoys: dict[str, AttentionEnvoy], wanted: set[str]):
        super().__init__()
        self.envoys, self.wanted = envoys, wanted
        self.running: list[list[Any]] = []  # [envoy, calls of SDPA so far]
        self.handles: list[Any] = []

    def __enter__(self) -> ServeAttention:
        paths = {location.rpartition(".")[0] for location in self.wanted}
        for path in paths:
            envoy = self.envoys[path]
            self.handles += [
                envoy._module.register_forward_pre_hook(lambda *_, e=envoy: self.running.append([e, 0])),
                envoy._module.register_forward_hook(lambda *_: self.running.pop() and None, always_call=True),
            ]
        return super().__enter__()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for handle in self.handles:
            handle.remove()
        super().__exit__(kind, error, trace)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not F.scaled_dot_product_attention or not self.running:
            return func(*args, **(kwargs or {}))
        bound = dict(zip(_SIGNATURE, args, strict=False)) | (kwargs or {})
        return self._attend(bound)

    def _attend(self, a: dict[str, Any]) -> Tensor:
        envoy, calls = self.running[-1]
        self.running[-1][1] += 1
        # Wan 2.1 image-to-video attends to the image first, then to the text
        image = getattr(envoy._module, "add_k_proj", None) is not None and calls == 0

        def serve(site: str, value: Tensor) -> Tensor:
            key = site.replace("hook_", "hook_image_") if image else site
            location = f"{envoy.path}.{key}"
            return envoy.interleaver.handle(location, value) if location in self.wanted else value

        a["query"] = a["query"] if image else serve("hook_q", a["query"])
        a["key"], a["value"] = serve("hook_k", a["key"]), serve("hook_v", a["value"])
        pattern_key = "hook_image_pattern" if image else "hook_pattern"
        if f"{envoy.path}.{pattern_key}" not in self.wanted:
            return serve("hook_z", F.scaled_dot_product_attention(**a))
        pattern = attention_pattern(a["query"], a["key"], a.get("attn_mask"), a.get("scale"), bool(a.get("is_causal", False)))
        served = serve("hook_pattern", pattern)
        # an unchanged pattern keeps the fused kernel, so that an identity edit stays bit-identical
        z = F.scaled_dot_product_attention(**a) if torch.equal(served, pattern) else served @ a["value"]
        return serve("hook_z", z)


def is_attention(module: torch.nn.Module) -> bool:
    """Modules of the diffusers attention kind: a processor and its projections."""
    return hasattr(module, "processor") and hasattr(module, "to_q") and not inspect.isclass(module)
