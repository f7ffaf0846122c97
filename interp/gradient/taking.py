"""Gradients of a metric with respect to activations of a run: what is asked for, the sweep, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cos_interp.interp.cache import ActivationCache
from cos_interp.interp.cache_plan import CachePlan, CacheRequest
from cos_interp.interp.errors import InterpError
from cos_interp.interp.gradient.loop import check_loop
from cos_interp.interp.gradient.memory import copies_saved, frozen
from cos_interp.interp.gradient.sweep import Keep, check_same, swept
from cos_interp.interp.gradient.tape import Tape
from cos_interp.interp.gradient.target import Metric, Target
from cos_interp.interp.hooking import TRAJECTORY, planned
from cos_interp.interp.rows import Fed, replay_arguments
from cos_interp.interp.run.director import Director
from cos_interp.interp.run.stage import Stage
from cos_interp.interp.run.taped import TapedStage
from cos_interp.interp.trajectory import Run

Play = Callable[[Director, dict[str, Any], type[Stage]], Run]
OFFLOADED = "of which the weights are not where a way back needs them: load it with offload none, and without layerwise casting"


class Gradients(NamedTuple):
    """What a metric's gradient came to.

    ``value`` is the metric's own; ``cache[name, step, branch]`` its gradient with respect to that activation, with the axes of an
    :class:`~cos_interp.interp.cache.ActivationCache`; ``run`` the run in which they lie.
    """

    value: float
    cache: ActivationCache
    run: Run


def taken(play: Play, pipe: Any, engines: Any, run: Run, metric: Metric, target: Target | None, request: CacheRequest) -> Gradients:
    """The gradients requested, of a run of one video. ``play`` plays the pipeline under a director, in a stage of a kind."""
    _check(pipe, engines, run)
    if target is not None:
        request = replace(request, steps=_steps(request, target, run))
    plan = planned(request, engines, run.x_t[0], run.steps, "uncond" in run.branches)
    cache, kept = ActivationCache(), [0]

    def keep(name: str, kind: str, step: int, branch: str | None, gradient: Tensor) -> None:
        kept[0] += cache.keep(name, kind, step, branch, gradient, plan)
        plan.check_kept(kept[0], name, step)

    value = sweep(play, pipe, engines, run, metric, target, plan, keep)
    cache.store = {key: cache.store[key] for key in sorted(cache.store, key=lambda key: (key[1], plan.names.index(key[0]), str(key[2])))}
    return Gradients(value, cache, run)


def sweep(
    play: Play, pipe: Any, engines: Any, run: Run, metric: Metric, target: Target | None, plan: CachePlan, keep: Keep
) -> float:
    """One sweep back over a run; every gradient that the plan wants goes to ``keep``. Returns the metric's value."""
    arguments, modules = replay_arguments(run, 1), [m for m in pipe.components.values() if isinstance(m, nn.Module)]
    with torch.inference_mode(False), frozen(modules):
        tape = Tape(run, plan.wants, target)
        with copies_saved(modules):
            final = play(tape, arguments, TapedStage).latents
        check_same(final, run.latents, "the final latents")
        check_loop(lambda fed: play(fed, arguments, Stage).latents, tape, final, _said(pipe))
        return swept(tape, final, metric, min(plan.steps), keep)


def _said(pipe: Any) -> str:
    return f"the loop of {type(pipe).__name__} with {type(pipe.scheduler).__name__}"


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


def _check(pipe: Any, engines: Any, run: Run) -> None:
    """InterpError for a run or a pipeline that a sweep does not go back over."""
    if len(run.latents) != 1:
        raise InterpError(f"gradients are of the run of one video, this one has {len(run.latents)}: run each alone")
    if any(tensor.is_inference() for tensor in (*run.x_t, *(part for out in run.outputs for part in out))):
        raise InterpError("this run was made inside torch.inference_mode(), whose tensors have no gradients: make it outside")
    for name, engine in engines.items():
        for path, module in engine.module.named_modules():
            hook = module.__dict__.get("_hf_hook")
            registry = module.__dict__.get("_diffusers_hook")
            if getattr(hook, "offload", False) or any("group_offloading" in h or "casting" in h for h in getattr(registry, "hooks", ())):
                raise InterpError(f"gradients: {name}.{path} is offloaded, {OFFLOADED}")
