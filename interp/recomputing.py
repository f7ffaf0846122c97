"""Activations that a recording does not keep: those of one step at a time, run again from the recorded latent.

A patched run starts from the streams of one step, and a patch in one step takes the donor's sites of that step. Where those of
all steps do not fit, the recording keeps the latents alone, and a step's activations are made again when patched runs start
there: one generation more for all steps of a grid, the same bits.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from cos_interp.interp.address import BRANCHES
from cos_interp.interp.cache import ActivationCache
from cos_interp.interp.cache_plan import DEFAULT_BUDGET, CachePlan, checked_budget
from cos_interp.interp.errors import BudgetExceeded
from cos_interp.interp.hooking import activation_bytes, in_place, is_guided, kind_of
from cos_interp.interp.keeping import Keeping
from cos_interp.interp.limits import shown_size
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.planning.first import first_latents
from cos_interp.interp.rows import Fed, replay_arguments
from cos_interp.interp.run.clock import Call
from cos_interp.interp.run.engine import ExpertEngine, split_visitor
from cos_interp.interp.selecting import token_mask
from cos_interp.interp.trajectory import Run

OF_THE_CACHE = (
    "steps",
    "branches",
    "tokens",
    "reduce",
    "max_bytes",
    "place",
)  # keywords of run_with_cache, none of the pipeline's


def recorded_lean(
    model: HookedVideoPipeline, asked: Collection[str], passing: Collection[str], keeping: Keeping, kwargs: Mapping[str, Any]
) -> tuple[Run, ActivationCache]:
    """A run with the names that were ``asked`` for, in the memory that one step of those ``passing`` leaves of ``max_bytes``.

    Raises BudgetExceeded before the first transformer call.
    """
    call = {key: value for key, value in kwargs.items() if key not in OF_THE_CACHE}
    budget = checked_budget(kwargs.get("max_bytes", DEFAULT_BUDGET))
    step = bytes_of_a_step(model, passing, keeping.tokens, call)
    if step > budget:
        raise BudgetExceeded(
            f"what patched runs need of one step takes {shown_size(step)}, the budget is {shown_size(budget)}: ask for fewer "
            f"frames or a smaller picture, or pass max_bytes={step} or more"
        )
    if not asked:
        return model.run(**call), in_place(keeping.place)
    more = {"tokens": keeping.tokens, "place": keeping.place, "max_bytes": budget - step}
    return model.run_with_cache(names=sorted(asked), **{**kwargs, **more})


def bytes_of_a_step(model: HookedVideoPipeline, names: Collection[str], tokens: Any, call: Mapping[str, Any]) -> int:
    """Bytes of the names at some tokens in one step of a run, in all branches, at most; no transformer runs."""
    latents, engine = first_latents(model, **call), next(iter(model.engines.values()))
    grid = model.token_grid(latents)
    kinds = {name: kind_of(model.engines, name) for name in names}
    sizes = activation_bytes(engine, kinds, grid, len(latents))
    mask = token_mask(tokens, grid.shape)
    share = 1.0 if mask is None else float(mask.sum()) / grid.tokens
    return round(sum(sizes.values()) * (len(BRANCHES) if is_guided(model.pipe) else 1) * share)


def hold(
    model: HookedVideoPipeline, run: Run, cache: ActivationCache, passing: Collection[str], step: int, tokens: Tensor | None
) -> None:
    """Have the ``passing`` names of a step in the cache, and of no other step. ``tokens``: bool over the grid; None: all."""
    if any(key[0] in passing and key[1] == step for key in cache):
        return
    for key in [key for key in cache if key[0] in passing]:
        del cache.store[key]
    model.play(_Again(run, cache, passing, step, tokens), **replay_arguments(run, 1))


class _Again(Fed):
    """Feeds a recorded run to the pipeline, and runs one of its steps again to keep what comes by."""

    def __init__(self, run: Run, cache: ActivationCache, names: Collection[str], step: int, tokens: Tensor | None):
        super().__init__(run, 1)
        self.cache, self.step = cache, step
        self.plan = CachePlan(tuple(names), frozenset([step]), None, tokens, None, sys.maxsize)  # which was held to its budget

    def call(self, calls: tuple[Call, ...], engine: ExpertEngine, kwargs: dict[str, Any]) -> Any:
        if calls[0].step != self.step:
            return super().call(calls, engine, kwargs)
        visits = {
            name: split_visitor([partial(self._keep, name, engine.points[name].kind, call) for call in calls], 1)
            for name in self.plan.names
            if name in engine.points
        }
        return engine((), kwargs, visits)

    def _keep(self, name: str, kind: str, call: Call, act: Tensor) -> None:
        self.cache.keep(name, kind, call.step, call.branch, act, self.plan)
