"""Gradients of a metric with respect to activations of a run: what is asked for, the sweep, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from cos_interp.interp.cache import ActivationCache
from cos_interp.interp.cache_plan import CachePlan, CacheRequest
from cos_interp.interp.errors import InterpError
from cos_interp.interp.gradient.sweep import Keep
from cos_interp.interp.gradient.target import Metric, Target
from cos_interp.interp.hooking import planned
from cos_interp.interp.run.engine import ExpertEngine
from cos_interp.interp.trajectory import Run

SweepBack = Callable[[Run, Metric, Target | None, CachePlan, Keep], float]


class Gradients(NamedTuple):
    """What a metric's gradient came to.

    ``value`` is the metric's own; ``cache[name, step, branch]`` its gradient with respect to that activation, with the axes of an
    :class:`~cos_interp.interp.cache.ActivationCache`; ``run`` the run in which they lie.
    """

    value: float
    cache: ActivationCache
    run: Run


def taken(
    back: SweepBack, engines: Mapping[str, ExpertEngine], run: Run, metric: Metric, target: Target | None, request: CacheRequest
) -> Gradients:
    """The gradients requested, of a run; ``back`` makes the sweep."""
    if target is not None:
        request = replace(request, steps=_steps(request, target, run))
    plan = planned(request, engines, run.x_t[0], run.steps, "uncond" in run.branches)
    cache, kept = ActivationCache(), [0]

    def keep(name: str, kind: str, step: int, branch: str | None, _: Tensor, gradient: Tensor) -> None:
        kept[0] += cache.keep(name, kind, step, branch, gradient, plan, kept[0])

    value = back(run, metric, target, plan, keep)
    order = {name: place for place, name in enumerate(plan.names)}  # as a run keeps them
    cache.store = dict(sorted(cache.store.items(), key=lambda item: (item[0][1], order[item[0][0]], str(item[0][2]))))
    return Gradients(value, cache, run)


def _steps(request: CacheRequest, target: Target, run: Run) -> tuple[int, ...]:
    """The steps asked for. InterpError for one after what the metric is of, which it cannot depend on."""
    if request.steps is None or request.steps == "all":
        return tuple(range(target.step + 1))
    steps = sorted(request.known_steps(run.steps))
    if steps[-1] > target.step:
        raise InterpError(
            f"step {steps[-1]} comes after step {target.step}, of which the metric is: its gradient is 0 there; ask for steps "
            f"0 to {target.step}"
        )
    return tuple(steps)
