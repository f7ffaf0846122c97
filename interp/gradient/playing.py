"""A sweep from end to end: what it does not go back over is refused, the loop is taped and tried, and the way back is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from cos_interp.interp.cache_plan import CachePlan
from cos_interp.interp.errors import InterpError
from cos_interp.interp.gradient.loop import check_loop
from cos_interp.interp.gradient.memory import copies_saved, frozen
from cos_interp.interp.gradient.sweep import Keep, back, check_same
from cos_interp.interp.gradient.tape import Tape
from cos_interp.interp.gradient.target import Metric, Target
from cos_interp.interp.rows import replay_arguments
from cos_interp.interp.run.director import Director
from cos_interp.interp.run.engine import ExpertEngine
from cos_interp.interp.run.stage import Stage
from cos_interp.interp.run.taped import TapedStage
from cos_interp.interp.trajectory import Run

Play = Callable[[Director, dict[str, Any], type[Stage]], Run]
OFFLOADED = "of which the weights are not where a way back needs them: load it with offload none, and without layerwise casting"


def swept(
    play: Play,
    pipe: Any,
    engines: Mapping[str, ExpertEngine],
    run: Run,
    metric: Metric,
    target: Target | None,
    plan: CachePlan,
    keep: Keep,
) -> float:
    """One sweep back over a run of one video; every gradient that the plan wants goes to ``keep``. Returns the metric's value.

    ``play`` plays the pipeline under a director, in a stage of a kind.
    """
    _check(engines, run)
    arguments, modules = replay_arguments(run, 1), [m for m in pipe.components.values() if isinstance(m, nn.Module)]
    with torch.inference_mode(False), frozen(modules):
        tape = Tape(run, plan.wants, target)
        with copies_saved(modules):
            final = play(tape, arguments, TapedStage).latents
        check_same(final, run.latents, "the final latents")
        check_loop(lambda fed: play(fed, arguments, Stage).latents, tape, final, _said(pipe))
        return back(tape, final, metric, min(plan.steps), keep)


def _said(pipe: Any) -> str:
    return f"the loop of {type(pipe).__name__} with {type(pipe.scheduler).__name__}"


def _check(engines: Mapping[str, ExpertEngine], run: Run) -> None:
    """InterpError for a run or a pipeline that a sweep does not go back over."""
    if len(run.latents) != 1:
        raise InterpError(f"gradients are of the run of one video, this one has {len(run.latents)}: run each alone")
    if any(tensor.is_inference() for tensor in (*run.x_t, *(part for out in run.outputs for part in out))):
        raise InterpError("this run was made inside torch.inference_mode(), whose tensors have no gradients: make it outside")
    refuse_offloaded(engines)


def refuse_offloaded(engines: Mapping[str, ExpertEngine]) -> None:
    """InterpError for weights that are not there when a way back needs them."""
    for name, engine in engines.items():
        for path, module in engine.module.named_modules():
            if _comes_and_goes(module):
                raise InterpError(f"gradients: {name}.{path} is offloaded, {OFFLOADED}")


def _comes_and_goes(module: nn.Module) -> bool:
    """Whether the weights of a module are somewhere else, or in another type, when its forward is over."""
    registry = module.__dict__.get("_diffusers_hook")
    moved = any("group_offloading" in hook or "casting" in hook for hook in (registry.hooks if registry is not None else ()))
    return moved or bool(getattr(module.__dict__.get("_hf_hook"), "offload", False))
