"""A model as a denoiser: what it takes a state of one's own for, at one step of a call, by a forward of that step alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.rows import Fed, replay_arguments
from cos_interp.interp.run.clock import Call, Step
from cos_interp.interp.run.director import Around, Director
from cos_interp.interp.run.engine import ExpertEngine, streams
from cos_interp.interp.run.prediction import clean_at
from cos_interp.interp.trajectory import Run


class Denoiser:
    """A call of a model, of which every step can be asked about any state: ``velocity(step, state)``.

    The pipeline's own loop runs, with its conditions encoded once, its guidance and its experts; of its forwards only the asked
    one computes. ``sigmas`` are the noise levels before the steps, and the one after the last. Raises InterpError for a batch,
    and for a pipeline that denoises something beside the video, whose state nobody says.
    """

    def __init__(self, model: HookedVideoPipeline, **call: Any):
        self.model, self.call = model, call
        self.frame = model.run_directed(_Frame, **call)
        scheduler = model.pipe.scheduler
        self.sigmas = (*self.frame.sigmas, clean_at(scheduler, len(scheduler.timesteps)).sigma)  # some end above 0
        kind = type(model.pipe).__name__
        if len(self.frame.outputs[0]) > 1:
            raise InterpError(f"{kind} denoises something beside the video (its sound), whose state no video says")
        if len(self.start) != 1:
            raise InterpError(f"{len(self.start)} videos in one call: ask about one at a time")

    @property
    def start(self) -> Tensor:
        """The state that the call itself begins with, ``[1, channel, frame, row, col]``."""
        return self.frame.x_t[0]

    @property
    def steps(self) -> int:
        return self.frame.steps

    def velocity(self, step: int, state: Tensor) -> Tensor:
        """``(x - x0hat(x)) / sigma`` after guidance, for a flow its velocity; 0 in given frames, which no step moves."""
        made = self.asked(step, state)
        return (made.x_t[step] - made.x0hat[step]) / made.sigmas[step]

    def asked(self, step: int, state: Tensor) -> Run:
        """The loop with a state put before a step; its other steps mean nothing."""
        return self.model.play(_At(self.frame, step, state), **replay_arguments(self.frame, 1))


class _Frame(Around):
    """A run whose transformer computes once for each form of its arguments, and returns zeros: the loop and what it needs."""

    def __init__(self, inner: Director):
        super().__init__(inner)
        self.forms: dict[tuple[Any, ...], Any] = {}

    def call(self, calls: tuple[Call, ...], engine: ExpertEngine, kwargs: dict[str, Any]) -> Any:
        form = (engine.name, tuple(kwargs["hidden_states"].shape))
        if form not in self.forms:
            out = engine((), kwargs, {})
            nothing = tuple(torch.zeros_like(part) for part in streams(out))
            self.forms[form] = nothing[0] if isinstance(out, Tensor) else nothing
        return self.forms[form]


class _At(Fed):
    """The loop with the forwards of one step alone, from a state that is put before it."""

    def __init__(self, run: Run, step: int, state: Tensor):
        super().__init__(run, 1)
        self.step, self.state = step, state

    def edit_x_t(self, step: Step, x_t: Tensor) -> Tensor:
        return self.state.to(x_t) if step.index == self.step else x_t

    def call(self, calls: tuple[Call, ...], engine: ExpertEngine, kwargs: dict[str, Any]) -> Any:
        return engine((), kwargs, {}) if calls[0].step == self.step else super().call(calls, engine, kwargs)
