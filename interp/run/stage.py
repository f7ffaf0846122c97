"""Running the pipeline's own loop with our stand-ins in place of its experts and its scheduler step.

Nothing of the loop is copied: the pipeline runs as it is, calls a thin proxy where its transformer was, and everything
is put back however the run ends.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cos_interp.interp.errors import InterpError
from cos_interp.interp.families.contract import check_output, check_pipeline, latents_of
from cos_interp.interp.run import generators
from cos_interp.interp.run.clock import StepClock
from cos_interp.interp.run.director import Director, When
from cos_interp.interp.run.engine import ExpertEngine, streams
from cos_interp.interp.run.finite import check_finite
from cos_interp.interp.run.latents import LatentView, canonical, native
from cos_interp.interp.run.prediction import Clean, check_scheduler, clean_at
from cos_interp.interp.run.refusing import check_patches, checked
from cos_interp.interp.run.sizes import check_sizes
from cos_interp.interp.run.standins import Method, Proxy, StandIn, swapped
from cos_interp.interp.trajectory import Run

LATENTS = {"output_type": "latent", "return_dict": False}  # how a pipeline is asked for its final latents


class Stage:
    """One run of one pipeline: counts steps and calls, fills ``run``, and asks the director what happens in them."""

    def __init__(self, pipe: Any, engines: Mapping[str, ExpertEngine], director: Director):
        self.pipe, self.engines, self.director = pipe, engines, director
        self.adapter = next(iter(engines.values())).adapter
        self.run = Run()
        self.noise = generators.GlobalNoise()
        self.clock = StepClock(pipe.scheduler, self.adapter.doubled, self.adapter.in_turn)
        self.asked: Mapping[str, Any] = {}
        # known once the pipeline has prepared its latents, and has stepped
        self.view: LatentView
        self.last: Tensor

    # --- calls ---------------------------------------------------------------------------------------------------

    def transformer_called(self, engine: ExpertEngine, kwargs: dict[str, Any]) -> Any:
        """One forward: which calls it is, what the director answers, and what the run keeps of that."""
        self.noise.enter()
        calls = self.clock.forward(engine.name, kwargs["hidden_states"].shape[0])
        self.run.calls.extend(calls)
        if calls[0].step == 0:
            self._keep_prompts([call.branch for call in calls], kwargs.get("encoder_hidden_states"))
        out = self.director.call(calls, engine, kwargs)
        check_output(engine.module, out, engine.adapter.output_item)
        where = f"{engine.name}'s output at step {calls[0].step} ({'/'.join(call.branch for call in calls)})"
        for stream in streams(out):
            check_finite(stream, where, itertools.chain([engine.module], _modules(self.pipe)))
        parts = zip(*(stream.chunk(len(calls)) for stream in streams(out)), strict=True)
        self.run.outputs.extend(tuple(stream.clone() for stream in branch) for branch in parts)
        self.noise.leave()
        return out

    def _keep_prompts(self, branches: list[str], embeds: Any) -> None:
        if not isinstance(embeds, Tensor):
            return
        kept = dict(zip(("cond", "uncond"), self.run.prompt_embeds, strict=True))
        kept |= dict(zip(branches, embeds.chunk(len(branches)), strict=True))
        self.run.prompt_embeds = (kept["cond"], kept["uncond"])

    # --- before the loop -----------------------------------------------------------------------------------------

    def _recalled(self, original: Method) -> Method:
        """A method whose results are kept for a replay."""

        @functools.wraps(original)
        def recall(*args: Any, **kwargs: Any) -> Any:
            found = self.director.encode(len(self.run.encoded), functools.partial(original, *args, **kwargs))
            self.run.encoded.append(found)
            self.noise.leave()
            return found

        return recall

    def _get_timesteps(self, original: Method) -> Method:
        @functools.wraps(original)
        def get(*args: Any, **kwargs: Any) -> Any:
            timesteps, *rest = original(*args, **kwargs)
            self.clock.planned_steps(len(timesteps))
            return (timesteps, *rest)

        return get

    def _set_timesteps(self, original: Method) -> StandIn:
        def set_timesteps(*args: Any, **kwargs: Any) -> Any:
            self.clock.timed = True
            return original(*args, **kwargs)

        return StandIn(original, set_timesteps)

    def _prepare_latents(self, original: Method) -> Method:
        signature = inspect.signature(original)

        @functools.wraps(original)
        def prepare(*args: Any, **kwargs: Any) -> Any:
            arguments = signature.bind(*args, **kwargs).arguments
            if self.clock.step:
                raise InterpError(
                    "the pipeline starts another section of the video after its denoising loop, or is called again while it "
                    "runs: ask for fewer frames; in a hook or another thread use a pipeline of its own (copy.deepcopy(model))"
                )
            prepared = self.director.prepare(lambda: original(*args, **kwargs))
            self._keep_generators("prepared", arguments)
            latents, *rest = prepared if isinstance(prepared, tuple) else (prepared,)
            latents = self._first_latents(latents, rest, arguments)
            self.noise.leave()
            return (latents, *rest) if isinstance(prepared, tuple) else latents

        return prepare

    def _first_latents(self, latents: Tensor, rest: list[Any], arguments: Mapping[str, Any]) -> Tensor:
        """Keep what the pipeline has prepared, and let its latents be edited; returns them as the pipeline has them."""
        layout, config = self.adapter.layout, self.adapter.expert(self.pipe).config
        self.run.prepared = (latents.clone(), *rest)  # some pipelines write into theirs
        self.clock.rows = latents.shape[0]
        self.run.dims = layout.prepared_dims(latents, arguments, self.pipe)
        check_sizes(self.pipe, self.asked, arguments, self.run.dims)
        check_patches(self.pipe, self.asked, self.run.dims, self.adapter.patch(config))
        whole = canonical(latents, layout, self.run.dims)
        count = self.adapter.channels(config, whole.shape[1])
        state = whole[:, :count]
        check_finite(whole, "what prepare_latents made", _modules(self.pipe))
        self.director.prepared(state, self.clock.planned)
        edited = self.director.edit_x_t(self.clock.at(0), state)
        given = self.adapter.given(config, edited, self.run.prepared).clone()
        self.view = LatentView(layout, self.run.dims, given, self.adapter.fixed(self.run.prepared))
        if edited is state:
            return latents
        return native(torch.cat([edited, whole[:, count:]], dim=1), latents, layout)

    def _keep_generators(self, when: When, arguments: Mapping[str, Any]) -> None:
        """Keep the states of the generators among the arguments of a call, which the director may set."""
        found = generators.listed(arguments.get("generator"))
        generators.restore(found, self.director.generator_states(when))
        self.run.generators[when] = [g.get_state() for g in found]

    # --- between calls -------------------------------------------------------------------------------------------

    def _scheduler_step(self, original: Method) -> StandIn:
        signature = inspect.signature(original)

        def step(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            if not self.adapter.is_step(self.pipe.scheduler, bound.arguments):
                return original(*args, **kwargs)
            k = self.clock.step
            clean = self._observe(k, bound.arguments)
            if k == 0:
                self._keep_generators("stepped", bound.arguments)
            self.noise.leave()
            out = original(*bound.args, **bound.kwargs)
            self.noise.enter()
            self.run.sigmas.append(clean.sigma)
            self.clock.stepped()
            following = self._following(k + 1, out[0] if isinstance(out, tuple) else out.prev_sample)
            self.noise.leave()  # an edit may draw
            if isinstance(out, tuple):
                return (following, *out[1:])
            out.prev_sample = following
            return out

        return StandIn(original, step)

    def _observe(self, k: int, arguments: dict[str, Any]) -> Clean:
        """Keep latent and prediction of a step, and let x0hat be edited."""
        run, given = self.run, arguments.get("pred_original_sample") is not None
        clean = clean_at(self.pipe.scheduler, self.clock.place(k), given)
        sample, v = self.view.whole(arguments["sample"]), self.view.whole_prediction(arguments["model_output"])
        estimate = clean.estimate(sample, v)
        x0hat = self.director.edit_x0hat(self.clock.at(k), estimate)
        led = None if x0hat is None else self._led(clean, sample, v, estimate, x0hat)
        if led is not None:
            v = led
            arguments["model_output"] = self.view.changing(v, arguments["model_output"])
            if given:
                arguments["pred_original_sample"] = arguments["model_output"]
        run.x_t.append(sample.clone(memory_format=torch.contiguous_format))
        run.v.append(v.clone(memory_format=torch.contiguous_format))
        run.clean.append(clean)
        run.timesteps.append(float(arguments["timestep"]))
        return clean

    def _led(self, clean: Clean, sample: Tensor, v: Tensor, estimate: Tensor, x0hat: Tensor) -> Tensor | None:
        """The prediction that leads to an edited clean estimate; None where it is what it was."""
        return None if torch.equal(x0hat, estimate) else clean.prediction(sample, x0hat)  # the way back rounds

    def _following(self, k: int, latents: Tensor) -> Tensor:
        """What the scheduler returned before step ``k``, edited where there is such a step."""
        self.last = latents
        check_finite(latents, f"what {type(self.pipe.scheduler).__name__} made of step {k - 1}")
        if self.clock.place(k) >= len(self.pipe.scheduler.timesteps):
            return latents
        whole = self.view.whole(latents)
        edited = self.director.edit_x_t(self.clock.at(k), whole)
        return latents if edited is whole else self.view.changing(edited, latents)

    # --- the run -------------------------------------------------------------------------------------------------

    def play(self, **kwargs: Any) -> Run:
        """Run the pipeline to its final latents. InterpError for a call that the adapter refuses."""
        return self._ended(self._on_stage({**kwargs, **LATENTS}))

    def _on_stage(self, kwargs: dict[str, Any]) -> Any:
        """What the pipeline's own call returns, with our stand-ins in place."""
        parameters = inspect.signature(type(self.pipe).__call__).parameters.values()
        reason = self.adapter.refuses_call(self.pipe, {p.name: p.default for p in parameters} | kwargs)
        if reason is not None:
            raise InterpError(f"{type(self.pipe).__name__} cannot be followed in this call: {reason}")
        self.asked = kwargs
        with self._set_up():
            return self._called(kwargs)

    def _ended(self, out: Any) -> Run:
        """The run, with what the pipeline returned when it was asked for LATENTS."""
        self.run.latents = self._final(latents_of(self.pipe, out)).clone(memory_format=torch.contiguous_format)
        self.run.beside = tuple(out[1:])
        self.run.unseeded = self.noise.drawn
        return self.run

    def _called(self, kwargs: dict[str, Any]) -> Any:
        """What the pipeline's own call returns."""
        with torch.no_grad():
            return self.pipe(**kwargs)

    def _final(self, out: Tensor) -> Tensor:
        """The final latents, from what the pipeline returned."""
        own = self.view.whole(self.last)
        if self.adapter.returned(self.pipe, own) is not own:  # in another scale
            return own
        final = self.view.canonical(out)
        before = final.shape[2] - self.view.dims[0]
        if before < 0:  # some pipelines do not return their condition's frame
            return own
        if before > 0:
            self.run.lead = final[:, :, :before].clone()
        return final[:, :, before:]

    def _set_up(self) -> contextlib.AbstractContextManager[None]:
        """Our stand-ins in the pipeline's and the scheduler's places, while the run lasts."""
        self._check()
        experts = {name: Proxy(engine, self.transformer_called, self.clock.within) for name, engine in self.engines.items()}
        methods: dict[str, Callable[[Method], Any]] = {
            "prepare_latents": self._prepare_latents,
            "get_timesteps": self._get_timesteps,
            "check_inputs": functools.partial(checked, self.pipe),
            **dict.fromkeys(("encode_prompt", *self.adapter.recalls), self._recalled),
        }
        return swapped(self.pipe, experts, methods, {"step": self._scheduler_step, "set_timesteps": self._set_timesteps})

    def _check(self) -> None:
        """InterpError for what cannot be followed; every engine is made ready."""
        check_scheduler(self.pipe.scheduler)
        check_pipeline(self.pipe, (engine.module for engine in self.engines.values()))
        for name, engine in self.engines.items():
            if getattr(self.pipe, name) is not engine.module:
                raise InterpError(f"pipe.{name} was replaced since this model was made: make another with from_pipeline(pipe)")
            engine.ready()


def _modules(pipe: Any) -> Iterator[nn.Module]:
    """The components that compute, without the experts, whose places our stand-ins hold. Looked up when they are asked for."""
    yield from (part for part in pipe.components.values() if isinstance(part, nn.Module) and not isinstance(part, Proxy))
