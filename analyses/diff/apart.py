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
from cos_interp.analyses.kit.updates import PRE, around, before, replaced, written
from cos_interp.interp.address import layer_of
from cos_interp.interp.cache import ActivationCache
from cos_interp.interp.hooking import FwdHook
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.clock import Hook
from cos_interp.interp.trajectory import Run

SITES = ("hook_attn_out", "hook_cross_attn_out", "hook_mlp_out", "hook_resid_post")


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


def inputs(model: HookedVideoPipeline) -> list[str]:
    """What every block reads: the streams before it, of video, and of text, audio and history where the family has them."""
    return [name for name in model.hook_names if f".{PRE}" in name]


def apart_rows(
    model: HookedVideoPipeline, other: HookedVideoPipeline, steps: Sequence[int], budget: int, call: dict[str, Any]
) -> list[Row]:
    """Rows of both kinds of inputs. ``call``: the pipeline's keywords of one video. BudgetExceeded for more bytes than that."""
    names, read = sites(model), inputs(model)
    run, cache = model.run_with_cache(names=[*names, *read], steps=list(steps), max_bytes=budget, **call)
    at = ",".join(map(str, steps))
    given = [(f"{name} @ step=[{at}]", _from(cache)) for name in read]
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
            "layer": layer_of(name), "site": name.rpartition(".")[2], **apart(mine[name, step, branch], theirs[key]),
        }
        for key in theirs if (name := key[0]) in names and (step := key[1]) is not None and (branch := key[2])
    ]  # fmt: skip


def ends(model: HookedVideoPipeline) -> list[str]:
    """The streams before and after every block."""
    return [name for after in written(model.hook_names, range(model.layers)) for name in (before(after), after)]


class Updates:
    """Hooks by which the blocks of a region write the updates that they had in another model's run.

    ``kept``: that run's streams before and after every block, at every step.
    """

    def __init__(self, kept: ActivationCache, layers: Sequence[int], expert: str):
        self.kept, self.layers, self.expert = kept, layers, expert

    def hooks(self, model: HookedVideoPipeline) -> list[FwdHook]:
        return around(model.hook_names, self.layers, self._write)

    def _write(self, came: Tensor, went: Tensor, hook: Hook) -> Tensor | None:
        if hook.expert != self.expert:
            return None
        after, first = (self.kept[name, hook.step, hook.branch] for name in (hook.name, before(hook.name)))
        return replaced(came, went, after - first).to(went.dtype)
