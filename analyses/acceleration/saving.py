"""Runs in which some calls of blocks are saved, as rows of one batch.

The blocks still run; what their parts give is replaced by what a run that saves them has there, so that it can be looked at on
any model. To rounding it is what diffusers' caches make of the same schedule."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cos_interp.analyses.acceleration import Call, Method
from cos_interp.analyses.kit.updates import PRE, around
from cos_interp.interp.address import layer_of
from cos_interp.interp.batch import chunks, joined
from cos_interp.interp.hooking import FwdHook
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.clock import Hook

PART = re.compile(r"blocks\.\d+\.hook_\w*_out(_text|_audio)?")  # what attention and MLP give, before their gates


@dataclass(frozen=True)
class Plan:
    """One row: the calls that are saved, and how. ``cache``: attention and MLP give what they gave in the last computed call of
    that block and branch; ``skip``: nothing, so that the block adds nothing; ``round``: the block reads its streams,
    and adds its updates to them, in so many ``bits`` with one scale a token."""

    method: Method
    calls: frozenset[Call]
    bits: int = 16


def parts(names: Iterable[str]) -> list[str]:
    """Of hook names those at which a block adds to its streams, of video, text and audio.

    >>> parts(["blocks.1.hook_resid_pre", "blocks.1.attn.hook_z", "blocks.1.hook_attn_out", "blocks.1.hook_mlp_out_text"])
    ['blocks.1.hook_attn_out', 'blocks.1.hook_mlp_out_text']
    """
    return [name for name in names if PART.fullmatch(name)]


def rounded(x: Tensor, bits: int) -> Tensor:
    """``x [..., d_model]`` in whole numbers of so many bits times one scale a token; 0 stays 0.

    >>> rounded(torch.tensor([1.0, 0.4, -0.9]), 2).tolist()
    [1.0, 0.0, -1.0]
    """
    most = 2 ** (bits - 1) - 1
    scale = x.abs().amax(-1, keepdim=True) / most
    return torch.where(scale > 0, (x / scale.clamp_min(1e-30)).round() * scale, x)


@dataclass
class Saving:
    """Hooks that save calls of the rows of a batch after the first, which stays as it is."""

    plans: Sequence[Plan]
    _held: dict[tuple[int, str, str | None], Tensor] = field(default_factory=dict, init=False)

    def hooks(self, model: HookedVideoPipeline) -> list[FwdHook]:
        """At the blocks of which some call is saved: where these add to their streams, and around those that are rounded."""
        names, saved, round_ = model.hook_names, self._layers("cache", "skip"), self._layers("round")
        made: list[FwdHook] = [(name, self._give) for name in parts(names) if layer_of(name) in saved]
        made += around(names, round_, self._write)  # which is given what came before it was rounded
        return made + [(name, self._read) for name in names if f".{PRE}" in name and layer_of(name) in round_]

    def _layers(self, *methods: Method) -> set[int]:
        return {layer for plan in self.plans if plan.method in methods for _, layer, _ in plan.calls}

    def _rows(self, method: Method, hook: Hook) -> list[int]:
        """The rows of a method that save this call."""
        call = (hook.step, hook.block, str(hook.branch))
        return [row for row, plan in enumerate(self.plans, 1) if plan.method == method and call in plan.calls]

    def _give(self, act: Tensor, hook: Hook) -> Tensor:
        out, cached = act.clone(), self._rows("cache", hook)
        for row, plan in enumerate(self.plans, 1):
            key = (row, hook.name, hook.branch)
            if row in cached:
                out[row] = self._held[key]
            elif plan.method == "cache":
                self._held[key] = act[row]
        out[self._rows("skip", hook)] = 0
        return out

    def _read(self, act: Tensor, hook: Hook) -> Tensor:
        out = act.clone()
        for row in self._rows("round", hook):
            out[row] = rounded(act[row], self.plans[row - 1].bits)
        return out

    def _write(self, before: Tensor, after: Tensor, hook: Hook) -> Tensor:
        out = after.clone()
        for row in self._rows("round", hook):
            bits = self.plans[row - 1].bits
            out[row] = before[row] + rounded(after[row] - rounded(before[row], bits), bits)
        return out


def saved_runs(model: HookedVideoPipeline, call: dict[str, Any], plans: Sequence[Plan], batch: int) -> Tensor:
    """Final latents ``[1 + plan, channel, frame, row, col]``: of the run itself, then with each plan. ``call``: of one video."""
    out: list[Tensor] = []
    for part in chunks(plans, batch - 1):
        run = model.run_with_hooks(fwd_hooks=Saving(part).hooks(model), **joined([call] * (1 + len(part))))
        out += [run.latents[1:]] if out else [run.latents]
    return torch.cat(out)
