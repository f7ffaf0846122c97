"""Running the pipeline's own loop with our stand-ins in place of its experts and its scheduler step.

Nothing of the loop is copied: the pipeline runs as it is, calls a thin proxy where its transformer was, and everything
is put back however the run ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from interp.clock import Call
from interp.engine import ExpertEngine
from interp.errors import InterpError
from interp.trajectory import Run

EXPERTS = ("transformer", "transformer_2")
# (call, engine, args, kwargs) -> what the transformer returns
CallHandler = Callable[[Call, ExpertEngine, tuple, dict[str, Any]], tuple]


class Proxy:
    """Stands in for one expert: labels each call, hands it to the stage, and is otherwise the expert itself."""

    def __init__(self, stage: Stage, engine: ExpertEngine):
        self._stage, self._engine = stage, engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine.module, name)

    @contextlib.contextmanager
    def cache_context(self, name: str, **facts: Any) -> Iterator[None]:
        self._stage.branch = name
        self._stage.check_clock(facts.get("step_index"))
        try:
            with self._engine.module.cache_context(name, **facts):
                yield
        finally:
            self._stage.branch = None

    def __call__(self, *args: Any, **kwargs: Any) -> tuple:
        return self._stage.transformer_called(self._engine, args, kwargs)


class Stage:
    """One run of one pipeline. Fills ``run``; the handlers decide what happens at calls and between steps."""

    def __init__(self, pipe: Any, engines: dict[str, ExpertEngine], handler: CallHandler):
        self.pipe, self.engines, self.handler = pipe, engines, handler
        self.run = Run()
        self.branch: str | None = None
        self.edit_x_t: Callable[[int, Tensor], Tensor] = lambda step, x_t: x_t
        self.edit_x0hat: Callable[[int, Tensor], Tensor | None] = lambda step, x0hat: None
        self.prepared_override: Any = None
        self.on_prepared: Callable[[Tensor], None] = lambda latents: None

    def check_clock(self, step_index: int | None) -> None:
        """Where the pipeline itself says which step it is at, it must agree with the count of scheduler steps."""
        if step_index is not None and step_index != len(self.run.v):
            raise InterpError(f"the pipeline says step {step_index}, the step clock counts {len(self.run.v)}: unsupported loop")

    def transformer_called(self, engine: ExpertEngine, args: tuple, kwargs: dict[str, Any]) -> tuple:
        step, scheduler = len(self.run.v), self.pipe.scheduler
        call = Call(
            len(self.run.calls), step, self.branch or "cond", engine.name,
            float(scheduler.sigmas[step]), float(scheduler.timesteps[step]),
        )  # fmt: skip
        self.run.calls.append(call)
        if step == 0:
            positive, negative = self.run.prompt_embeds or (None, None)
            embeds = kwargs["encoder_hidden_states"]
            self.run.prompt_embeds = (positive, embeds) if call.branch == "uncond" else (embeds, negative)
        out = self.handler(call, engine, args, kwargs)
        self.run.outputs.append(out[0].clone())
        return out

    def _scheduler_step(self, original: Callable) -> Callable:
        def step(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
            run = self.run
            k, sigma = len(run.v), float(self.pipe.scheduler.sigmas[len(run.v)])
            x0hat = self.edit_x0hat(k, sample - sigma * model_output)
            if x0hat is not None:
                if sigma == 0:
                    raise InterpError(f"hook_x0hat @ step={k}: sigma is 0 there, so no model output leads to another x0hat")
                model_output = (sample - x0hat) / sigma
            run.x_t.append(sample.clone())
            run.v.append(model_output.clone())
            run.sigmas.append(sigma)
            run.timesteps.append(float(timestep))
            out = original(model_output, timestep, sample, *args, **kwargs)
            following = out[0] if isinstance(out, tuple) else out.prev_sample
            new = self.edit_x_t(k + 1, following) if k + 1 < len(self.pipe.scheduler.timesteps) else following
            if isinstance(out, tuple):
                return (new, *out[1:])
            out.prev_sample = new
            return out

        return step

    def _prepare_latents(self, original: Callable) -> Callable:
        def prepare(*args: Any, **kwargs: Any) -> Any:
            prepared = self.prepared_override
            if prepared is None:
                prepared = original(*args, **kwargs)
            latents, *rest = prepared if isinstance(prepared, tuple) else (prepared,)
            self.run.prepared = (latents, *rest)
            self.on_prepared(latents)
            latents = self.edit_x_t(0, latents)
            return (latents, *rest) if isinstance(prepared, tuple) else latents

        return prepare

    @contextlib.contextmanager
    def set_up(self) -> Iterator[None]:
        """Swap the stand-ins in, and everything back at the end."""
        pipe, scheduler = self.pipe, self.pipe.scheduler
        if not hasattr(scheduler, "sigmas") or getattr(scheduler, "order", 1) != 1:
            raise InterpError(
                f"{type(scheduler).__name__} takes several model outputs a step or has no sigmas; "
                "load FlowMatchEulerDiscreteScheduler or UniPCMultistepScheduler instead"
            )
        kept = {name: getattr(pipe, name) for name in self.engines}
        try:
            for name, engine in self.engines.items():
                object.__setattr__(pipe, name, Proxy(self, engine))
            scheduler.step = self._scheduler_step(scheduler.step)
            pipe.prepare_latents = self._prepare_latents(pipe.prepare_latents)
            yield
        finally:
            for name, module in kept.items():
                object.__setattr__(pipe, name, module)
            scheduler.__dict__.pop("step", None)
            pipe.__dict__.pop("prepare_latents", None)

    def play(self, **kwargs: Any) -> Run:
        """Run the pipeline to its final latents."""
        with self.set_up(), torch.no_grad():
            out = self.pipe(**kwargs, output_type="latent", return_dict=False)[0]
        self.run.latents = out
        return self.run
