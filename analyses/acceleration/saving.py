"""Runs in which some calls of blocks are saved, as rows of one batch.

The blocks still run; what they would have added is replaced by what a run that saves them has there, so that it can be looked at
on any model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cos_interp.analyses.acceleration import Call, Method
from cos_interp.interp.batch import chunks, joined
from cos_interp.interp.hooking import FwdHook
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.clock import Hook

PRE, POST = "hook_resid_pre", "hook_resid_post"


@dataclass(frozen=True)
class Plan:
    """One row: the calls that are saved, and how. ``cache``: the update of the last computed call of that block and branch;
    ``skip``: none; ``round``: the block reads its input, and adds its update, in so many ``bits`` with one scale a token."""

    method: Method
    calls: frozenset[Call]
    bits: int = 16


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
    _before: dict[str, Tensor] = field(default_factory=dict, init=False)
    _held: dict[tuple[int, str, str | None, str | None], Tensor] = field(default_factory=dict, init=False)

    def hooks(self, model: HookedVideoPipeline) -> list[FwdHook]:
        """At every stream of the blocks of which some call is saved (video, and text or history where blocks write these)."""
        layers = {layer for plan in self.plans for _, layer, _ in plan.calls}
        known = set(model.hook_names)
        made: list[FwdHook] = []
        for name in model.hook_names:
            block, _, site = name.rpartition(".")
            after = f"{block}.{site.replace(PRE, POST)}"
            if site.startswith(PRE) and after in known and int(block.split(".")[1]) in layers:
                made += [(name, self._read), (after, self._write)]
        return made

    def _saved(self, row: int, hook: Hook) -> bool:
        return (hook.step, hook.block, str(hook.branch)) in self.plans[row - 1].calls

    def _read(self, act: Tensor, hook: Hook) -> Tensor | None:
        self._before[hook.name.replace(PRE, POST)] = act
        rows = [r for r, plan in enumerate(self.plans, 1) if plan.method == "round" and self._saved(r, hook)]
        if not rows:
            return None
        out = act.clone()
        for row in rows:
            out[row] = rounded(act[row], self.plans[row - 1].bits)
        return out

    def _write(self, act: Tensor, hook: Hook) -> Tensor | None:
        before, out = self._before[hook.name], act.clone()
        for row, plan in enumerate(self.plans, 1):
            key = (row, hook.name, hook.branch, hook.expert)
            if not self._saved(row, hook):
                if plan.method == "cache":
                    self._held[key] = act[row] - before[row]
            elif plan.method == "cache":
                if key in self._held:  # else another expert ran before, and there is nothing to take
                    out[row] = before[row] + self._held[key]
            elif plan.method == "skip":
                out[row] = before[row]
            else:
                read = rounded(before[row], plan.bits)
                out[row] = before[row] + rounded(act[row] - read, plan.bits)
        return out


def saved_runs(model: HookedVideoPipeline, call: dict[str, Any], plans: Sequence[Plan], batch: int) -> Tensor:
    """Final latents ``[1 + plan, channel, frame, row, col]``: of the run itself, then with each plan. ``call``: of one video."""
    out: list[Tensor] = []
    for part in chunks(plans, batch - 1):
        run = model.run_with_hooks(fwd_hooks=Saving(part).hooks(model), **joined([call] * (1 + len(part))))
        out += [run.latents[1:]] if out else [run.latents]
    return torch.cat(out)
