"""The same things with plain PyTorch and plain nnsight: what the tool is measured against, and must equal bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import nnsight
import torch
from torch import Tensor, nn

Change = Callable[[int, Tensor], Tensor | None]


def generate(pipe: Any, call: dict[str, Any]) -> Tensor:
    """Final latents of the plain pipeline, of seed 0."""
    return pipe(**call, output_type="latent", generator=torch.Generator().manual_seed(0)).frames


@contextmanager
def hooks(blocks: nn.ModuleList, layers: range, change: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
    """A plain forward hook on some blocks: ``change(layer, output)``."""
    handles = [blocks[i].register_forward_hook(lambda m, a, out, i=i: change(i, out)) for i in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def outputs(pipe: Any, call: dict[str, Any], norms: bool = False) -> dict[tuple[int, int], Tensor]:
    """Every block's output at every call, by (call, layer), or its norms over the width."""
    kept: dict[tuple[int, int], Tensor] = {}
    count: dict[int, int] = {}

    def keep(layer: int, out: Tensor) -> None:
        number = count[layer] = count.get(layer, -1) + 1
        kept[number, layer] = out.norm(dim=-1) if norms else out.clone()

    blocks = pipe.transformer.blocks
    with hooks(blocks, range(len(blocks)), keep):
        generate(pipe, call)
    return kept


class Whole(nn.Module):
    """A pipeline as a module that nnsight can trace."""

    def __init__(self, pipe: Any):
        super().__init__()
        self.__dict__["pipe"] = pipe
        self.transformer = pipe.transformer

    def forward(self, **call: Any) -> Tensor:
        return generate(self.pipe, call)


def nnsight_outputs(traced: nnsight.NNsight, layers: int, calls: int, call: dict[str, Any]) -> dict[tuple[int, int], Tensor]:
    """Every block's output at every call in one plain nnsight trace of the pipeline."""
    with traced.trace(**call) as tracer:
        kept = nnsight.save({})
        for number in tracer.iter[:calls]:
            for layer in range(layers):
                kept[number, layer] = traced.transformer.blocks[layer].output.clone()
    return kept


def patterns(pipe: Any, call: dict[str, Any]) -> list[Tensor]:
    """Self-attention patterns at every call: softmax(q k / sqrt(d)) in the place of PyTorch's fused attention."""
    import torch.nn.functional as F

    kept: list[Tensor] = []
    fused = F.scaled_dot_product_attention

    def open_attention(query: Tensor, key: Tensor, value: Tensor, **said: Any) -> Tensor:
        if query.shape[-2] != key.shape[-2]:
            return fused(query, key, value, **said)
        pattern = torch.softmax(query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5, -1)
        kept.append(pattern)
        return pattern @ value

    F.scaled_dot_product_attention = open_attention
    try:
        generate(pipe, call)
    finally:
        F.scaled_dot_product_attention = fused
    return kept


class Replay:
    """Patched runs of a Euler flow by hand: from the recorded ``x_t`` of the step, the first call from the patched block on."""

    def __init__(self, model: Any, run: Any, call: dict[str, Any]):
        self.pipe, self.run = model.pipe, run
        self.seen: list[dict[str, Any]] = []  # keywords of every transformer call
        handle = self.pipe.transformer.register_forward_pre_hook(
            lambda m, args, kwargs: self.seen.append(dict(kwargs)), with_kwargs=True
        )
        try:
            generate(self.pipe, call)
        finally:
            handle.remove()
        self.sigmas = self.pipe.scheduler.sigmas

    def cell(self, step: int, layer: int, donor: Tensor) -> Tensor:
        """Final latents with a donor's whole residual stream ``[1, token, width]`` after a block in one step."""
        latents = self.run.x_t[step]
        for k in range(step, len(self.seen)):
            v = self._first(k, layer, donor, latents) if k == step else self._call(k, latents)
            latents = self._stepped(k, latents, v)
        return latents

    def whole_step(self, step: int, layer: int, donor: Tensor) -> Tensor:
        """The same with all blocks of the step run, and a forward hook on the patched one."""
        latents = self.run.x_t[step]
        for k in range(step, len(self.seen)):
            with hooks(self.pipe.transformer.blocks, range(layer, layer + (k == step)), lambda i, out: donor):
                latents = self._stepped(k, latents, self._call(k, latents))
        return latents

    def _stepped(self, k: int, latents: Tensor, v: Tensor) -> Tensor:
        made = latents.to(torch.float32) + (self.sigmas[k + 1] - self.sigmas[k]) * v  # as the scheduler does
        return made.to(v.dtype)

    def _call(self, k: int, latents: Tensor) -> Tensor:
        given = self.seen[k]
        own = given["hidden_states"]
        if own.shape[1] > latents.shape[1]:  # an image model's condition goes beside the latents
            latents = torch.cat([latents, own[:, latents.shape[1] :]], 1)
        return self.pipe.transformer(**{**given, "hidden_states": latents, "return_dict": False})[0]

    def _first(self, k: int, layer: int, donor: Tensor, latents: Tensor) -> Tensor:
        network = self.pipe.transformer
        blocks, rest = network.blocks, network.blocks[layer + 1 :]
        after = rest[0] if len(rest) else network.norm_out
        handle = after.register_forward_pre_hook(lambda m, args: (donor, *args[1:]))
        network.blocks = rest
        try:
            return self._call(k, latents)
        finally:
            network.blocks = blocks
            handle.remove()


def patched(pipe: Any, call: dict[str, Any], step: int, layer: int, donor: Tensor) -> Tensor:
    """Final latents of a whole plain run with a forward hook that puts a donor in at one step."""
    count = iter(range(10**6))
    with hooks(pipe.transformer.blocks, range(layer, layer + 1), lambda i, out: donor if next(count) == step else None):
        return generate(pipe, call)
