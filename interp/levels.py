"""Runs at noise levels of one's own: the same number of steps, spent elsewhere."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch

from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.prediction import is_flow
from cos_interp.interp.scalars import finite

SAME = 1e-5  # within which a level is the scheduler's own


@contextlib.contextmanager
def at_sigmas(model: HookedVideoPipeline, sigmas: Sequence[float]) -> Iterator[HookedVideoPipeline]:
    """Runs in the block denoise at these noise levels, one a step, in place of those that the scheduler would take.

    ``sigmas`` fall, begin at the scheduler's own first level, which is that of the noise, and end above its last one (0), which
    stays. A call asks for as many steps: ``with at_sigmas(model, [1.0, 0.5]): model.run(..., num_inference_steps=2)``. At the
    scheduler's own levels a run is the same bit for bit.

    Raises InterpError for levels that do not fall, for a model that is no flow, and in a run of another number of steps, from
    another first level, or whose scheduler's timesteps are not its noise levels.
    """
    levels = [value for sigma in sigmas if (value := finite(sigma)) is not None]
    if len(levels) != len(sigmas) or len(levels) < 2 or any(a <= b for a, b in pairwise([*levels, 0.0])):
        raise InterpError(f"sigmas={list(sigmas)}: give two noise levels or more, that fall and stay above 0")
    scheduler = model.pipe.scheduler
    if not is_flow(scheduler):
        raise InterpError(f"{type(scheduler).__name__} samples no flow, and has its own timesteps: take a flow-matching model")
    if "set_timesteps" in vars(scheduler):
        raise InterpError("the scheduler's set_timesteps was replaced already: leave the other block first")
    scheduler.set_timesteps = _Given(scheduler, scheduler.set_timesteps, levels)
    try:
        yield model
    finally:
        del scheduler.set_timesteps


class _Given:
    """In place of a scheduler's ``set_timesteps``; a copy of the scheduler has it, too (LTX-2 steps its sound with one)."""

    def __init__(self, scheduler: Any, original: Callable[..., None], levels: Sequence[float]):
        self.scheduler, self.original, self.levels = scheduler, original, levels
        functools.update_wrapper(self, original)  # pipelines ask for its parameters

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        self.original(*args, **kwargs)
        scheduler, most = self.scheduler, float(self.scheduler.config.num_train_timesteps)
        own, last = scheduler.sigmas[:-1], scheduler.sigmas[-1:]
        if len(own) != len(self.levels):
            raise InterpError(f"{len(self.levels)} noise levels for a run of {len(own)} steps: give one a step")
        if (scheduler.timesteps.to(own) - most * own).abs().max() > 1:  # some are whole numbers
            raise InterpError(
                f"{type(scheduler).__name__} has timesteps that are not its noise levels: load a FlowMatchEuler one"
            )
        inverted = bool(scheduler.config.get("invert_sigmas", False))  # Mochi
        given = torch.tensor([1 - level if inverted else level for level in self.levels]).to(own)
        same = (given - own).abs() < SAME
        if not same[0]:
            began = float(1 - own[0] if inverted else own[0])
            raise InterpError(
                f"the run begins in noise of level {began:g}, not {self.levels[0]:g}: make that the first of sigmas"
            )
        scheduler.sigmas = torch.cat([torch.where(same, own, given), last])
        times = scheduler.timesteps
        scheduler.timesteps = torch.where(same.to(times.device), times, (most * given).to(times))

    def __deepcopy__(self, memo: dict[int, Any]) -> _Given:
        return type(self)(copy.deepcopy(self.scheduler, memo), copy.deepcopy(self.original, memo), self.levels)
