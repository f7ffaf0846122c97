"""Two models on the same inputs: how far their activations are apart, by expert, step, branch, layer and site.

The other model gets the latents of the first one's run at every step, so that nothing adds up along the steps. *Own*: each block
reads what its own model's blocks before it made of them. *Given*: each block reads the first model's input of that block, so that
what differs is what this block does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cos_interp.analyses.diff.regions import relative
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.cka import debiased_cka, linear_cka, state_features
from cos_interp.interp.cache import ActivationCache
from cos_interp.interp.hooking import FwdHook
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.clock import Hook
from cos_interp.interp.trajectory import Run

SITES = ("hook_attn_out", "hook_cross_attn_out", "hook_mlp_out", "hook_resid_post")
BEFORE = ".hook_resid_pre"  # of the video, and of text and history where the family has them


def apart(mine: Tensor, theirs: Tensor) -> dict[str, float]:
    """How far two activations ``[1, frame, row, col, d_model]`` are apart: ``delta``, the norm of the difference over that of the
    first; ``cka``, 1 minus their linear CKA over tokens (Kornblith et al. 2019), and ``cka_debiased``, the same from the unbiased
    HSIC, which does not go to 0 where there are more channels than tokens. All exactly 0 for equal ones."""
    if torch.equal(mine, theirs):
        return {"delta": 0.0, "cka": 0.0, "cka_debiased": 0.0}
    x, y = state_features(mine[0]), state_features(theirs[0])
    return {"delta": relative(x, y), "cka": 1 - linear_cka(x, y), "cka_debiased": 1 - debiased_cka(x, y)}


def sites(model: HookedVideoPipeline) -> list[str]:
    """The sites that are compared, in every block that has them."""
    return [name for name in model.hook_names if name.startswith("blocks.") and name.rpartition(".")[2] in SITES]


def apart_rows(
    model: HookedVideoPipeline, other: HookedVideoPipeline, steps: Sequence[int], budget: int, call: dict[str, Any]
) -> list[Row]:
    """Rows of both kinds of inputs. ``call``: the pipeline's keywords of one video. BudgetExceeded for more bytes than that."""
    names = sites(model)
    inputs = [name for name in model.hook_names if BEFORE in name]
    run, cache = model.run_with_cache(names=[*names, *inputs], steps=list(steps), max_bytes=budget, **call)
    at = ",".join(map(str, steps))
    given = [(f"{name} @ step=[{at}]", _from(cache)) for name in inputs]
    rows: list[Row] = []
    for kind, hooks in (("own", []), ("given", given)):
        with other.hooks([("hook_x_t", _latents(run)), *hooks]):
            _, theirs = other.run_with_cache(names=names, steps=list(steps), max_bytes=budget, **call)
        rows += [{"inputs": kind, **row} for row in _compared(run, cache, theirs, names)]
    return rows


def _from(cache: ActivationCache) -> Any:
    return lambda act, hook: cache[hook.name, hook.step, hook.branch].to(act.dtype, copy=True)  # models may count in other bits


def _latents(run: Run) -> Any:
    def give(x_t: Tensor, hook: Hook) -> Tensor:
        return run.x_t[hook.step].to(x_t.dtype, copy=True)

    return give


def _compared(run: Run, mine: ActivationCache, theirs: ActivationCache, names: Sequence[str]) -> list[Row]:
    expert = {(call.step, call.branch): call.expert for call in run.calls}
    return [
        {
            "expert": expert[step, branch], "step": step, "sigma": run.sigmas[step], "branch": branch,
            "layer": int(name.split(".")[1]), "site": name.rpartition(".")[2], **apart(mine[name, step, branch], theirs[key]),
        }
        for key in theirs if (name := key[0]) in names and (step := key[1]) is not None and (branch := key[2])
    ]  # fmt: skip


class Updates:
    """Hooks by which the blocks of a region write the updates that they had in another model's run.

    ``kept``: that run's residual streams before and after every block, at every step.
    """

    def __init__(self, kept: ActivationCache, layers: Sequence[int], expert: str):
        self.kept, self.layers, self.expert = kept, layers, expert
        self._before: Tensor | None = None

    def hooks(self) -> list[FwdHook]:
        places = [(f"blocks.{n}.hook_resid_pre", f"blocks.{n}.hook_resid_post") for n in self.layers]
        return [hook for pre, post in places for hook in ((pre, self._keep), (post, self._write))]

    def _keep(self, act: Tensor, hook: Hook) -> None:
        self._before = act

    def _write(self, act: Tensor, hook: Hook) -> Tensor | None:
        if hook.expert != self.expert or self._before is None:
            return None
        pre, post = (f"blocks.{hook.layer}.{site}" for site in ("hook_resid_pre", "hook_resid_post"))
        given = self.kept[post, hook.step, hook.branch] - self.kept[pre, hook.step, hook.branch]
        return (act + (given - (act - self._before))).to(act.dtype)  # its own update given back changes no bit
