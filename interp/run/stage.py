"""Running the pipeline's own loop with our stand-ins in place of its experts and its scheduler step.

Nothing of the loop is copied: the pipeline runs as it is, calls a thin proxy where its transformer was, and everything
is put back however the run ends.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor

from cos_interp.interp.errors import InterpError
from cos_interp.interp.families.contract import check_output, check_pipeline, latents_of, takes
from cos_interp.interp.run import generators
from cos_interp.interp.run.clock import Call
from cos_interp.interp.run.engine import ExpertEngine, streams
from cos_interp.interp.run.prediction import Clean, check_scheduler, clean_at
from cos_interp.interp.trajectory import Run

EXPERTS = ("transformer", "transformer_2")
BRANCH_NAMES = {"cond": "cond", "uncond": "uncond", "pred_cond": "cond", "pred_uncond": "uncond", "cond_uncond": None}
REPLACED = ("prepare_latents", "encode_prompt", "get_timesteps", "maybe_free_model_hooks")
# (calls in the order of the batch, engine, kwargs) -> what the transformer returns
CallHandler = Callable[[tuple[Call, ...], ExpertEngine, dict[str, Any]], Any]


class StandIn:
    """Answers in place of a method of the scheduler; in a copy of the scheduler (LTX-2 steps its audio with one) it is the
    copy's own method again."""

    def __init__(self, original: Callable, answer: Callable):
        self.original, self.answer = original, answer
        functools.update_wrapper(self, original)  # pipelines ask for the parameters of a step

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.answer(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable:
        return copy.deepcopy(self.original, memo)


class Proxy:
    """Stands in for one expert: labels each call, hands it to the stage, and is otherwise the expert itself."""

    def __init__(self, stage: Stage, engine: ExpertEngine):
        self._stage, self._engine = stage, engine
        forward = type(engine.module).forward
        self._signature, self._has_return_dict = inspect.signature(forward), takes(forward, "return_dict")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine.module, name)

    @property
    def __class__(self) -> type:
        """Pipelines look among their torch modules for the device of an offloaded one."""
        return type(self._engine.module)

    @contextlib.contextmanager
    def cache_context(self, name: str, **facts: Any) -> Iterator[None]:
        if name not in BRANCH_NAMES:
            raise InterpError(f"the pipeline runs a {name!r} branch beside cond and uncond: switch that kind of guidance off")
        self._stage.branch = BRANCH_NAMES[name]
        self._stage.check_clock(facts.get("step_index"))
        try:
            with self._engine.module.cache_context(name, **facts):
                yield
        finally:
            self._stage.branch = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kwargs = dict(self._signature.bind(None, *args, **kwargs).arguments)
        kwargs.pop("self", None)
        kwargs |= kwargs.pop("kwargs", {})
        if not self._has_return_dict:
            return self._stage.transformer_called(self._engine, kwargs)
        plain = not kwargs.get("return_dict", True)
        out = self._stage.transformer_called(self._engine, kwargs | {"return_dict": False})
        return out if plain else Transformer2DModelOutput(sample=out[0] if isinstance(out, tuple) else out)


class Stage:
    """One run of one pipeline. Fills ``run``; the handlers decide what happens at calls and between steps."""

    def __init__(self, pipe: Any, engines: dict[str, ExpertEngine], handler: CallHandler):
        self.pipe, self.engines, self.handler = pipe, engines, handler
        self.adapter = next(iter(engines.values())).adapter
        self.run = Run()
        self.branch: str | None = None
        self.rows = 0  # of the pipeline's latents
        self.forwards = [0, 0]  # in all, in this step
        self.last: Tensor | None = None  # what the scheduler returned
        self.given: Tensor | None = None  # the first latents; some pipelines keep their first frames
        self.edit_x_t: Callable[[int, Tensor], Tensor] = lambda step, x_t: x_t
        self.edit_x0hat: Callable[[int, Tensor], Tensor | None] = lambda step, x0hat: None
        self.prepared_override: Any = None
        self.encoded_override: list[Any] | None = None
        self.generator_states: dict[str, list[Tensor]] | None = None
        self.noise_state: Tensor | None = None  # of PyTorch's global generator, when the pipeline last got control
        self.on_prepared: Callable[[Tensor, int | None], None] = lambda latents, steps: None
        self.timed = False  # the pipeline has set its timesteps
        self.left_out = 0  # first timesteps that a video-to-video pipeline leaves out
        self.planned: int | None = None  # steps, where the pipeline says so before it prepares latents

    def canonical(self, latents: Tensor) -> Tensor:
        """Latents as ``[batch, channel, frame, row, col]``; pipelines that pack them unpack for the scheduler at times."""
        if self.adapter.layout.packed and latents.ndim == 5:
            return latents
        return self.adapter.layout.to_canonical(latents, self.run.dims)

    def native(self, latents: Tensor, like: Tensor) -> Tensor:
        """The inverse of :meth:`canonical`, in the layout of ``like``."""
        if self.adapter.layout.packed and like.ndim == 5:
            return latents
        return self.adapter.layout.from_canonical(latents)

    def whole(self, latents: Tensor, fill: Tensor | None) -> Tensor:
        """Canonical latents with the first frames that the scheduler does not see: given frames stay as they are.

        ``fill`` has those frames; None stands for zeros (a prediction that moves nothing).
        """
        latents = self.canonical(latents)
        missing = self.run.dims[0] - latents.shape[2]
        if missing == 0:
            return latents
        batch, channels = latents.shape[:2]
        first = latents.new_zeros(batch, channels, missing, *latents.shape[3:]) if fill is None else fill[:, :channels, :missing]
        return torch.cat([first.to(latents), latents], dim=2)

    def changing(self, latents: Tensor, like: Tensor) -> Tensor:
        """The inverse of :meth:`whole`: only the frames that the scheduler sees, in the layout of ``like``."""
        seen = self.canonical(like).shape[2]
        return self.native(latents[:, :, latents.shape[2] - seen :], like)

    def check_clock(self, step_index: int | None) -> None:
        """Where the pipeline itself says which step it is at, it must agree with the count of scheduler steps."""
        if step_index is not None and step_index != len(self.run.v):
            raise InterpError(f"the pipeline says step {step_index}, the step clock counts {len(self.run.v)}: unsupported loop")

    def level(self, step: int) -> tuple[float, float]:
        """Noise level and timestep of a step; not a number before the pipeline has set its timesteps."""
        if not self.timed:
            return math.nan, math.nan
        scheduler, place = self.pipe.scheduler, self.left_out + step
        return clean_at(scheduler, place).sigma, float(scheduler.timesteps[place])

    # --- calls ---------------------------------------------------------------------------------------------------

    def branches(self, batch: int) -> tuple[str, ...]:
        """The branches of a forward, in the order of its batch."""
        if batch == 2 * self.rows:
            return self.adapter.doubled
        if batch != self.rows:
            raise InterpError(
                f"the pipeline calls its transformer with {batch} rows for {self.rows} video(s): only conditional and "
                "unconditional branches are known; switch other kinds of guidance off"
            )
        return (self.branch or self.adapter.in_turn[min(self.forwards[1], 1)],)

    def transformer_called(self, engine: ExpertEngine, kwargs: dict[str, Any]) -> Any:
        run, step = self.run, len(self.run.v)
        self._check_noise()
        branches = self.branches(kwargs["hidden_states"].shape[0])
        if self.forwards[1] > 1:
            raise InterpError(f"step {step} calls its transformer more than twice: unsupported kind of guidance")
        sigma, timestep = self.level(step)
        calls = tuple(
            Call(len(run.calls) + i, step, branch, engine.name, sigma, timestep, self.forwards[0])
            for i, branch in enumerate(branches)
        )
        run.calls.extend(calls)
        self.forwards = [n + 1 for n in self.forwards]
        if step == 0:
            self._keep_prompts(branches, kwargs.get("encoder_hidden_states"))
        out = self.handler(calls, engine, kwargs)
        check_output(engine.module, out, engine.adapter.output_item)
        parts = zip(*(stream.chunk(len(calls)) for stream in streams(out)), strict=True)
        run.outputs.extend(tuple(stream.clone() for stream in branch) for branch in parts)
        self.noise_state = torch.get_rng_state()
        return out

    def _keep_prompts(self, branches: tuple[str, ...], embeds: Any) -> None:
        if not isinstance(embeds, Tensor):
            return
        kept = dict(zip(("cond", "uncond"), self.run.prompt_embeds or (None, None), strict=True))
        kept |= dict(zip(branches, embeds.chunk(len(branches)), strict=True))
        self.run.prompt_embeds = (kept["cond"], kept["uncond"])

    # --- between calls -------------------------------------------------------------------------------------------

    def _scheduler_step(self, original: Callable) -> Callable:
        signature = inspect.signature(original)

        def step(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            if not self.adapter.is_step(self.pipe.scheduler, bound.arguments):
                return original(*args, **kwargs)
            k = len(self.run.v)
            clean = self._observe(k, bound.arguments)
            if k == 0:
                self._keep_generators("stepped", bound.arguments)
            self.noise_state = torch.get_rng_state()
            out = original(*bound.args, **bound.kwargs)
            self._check_noise()
            self.run.sigmas.append(clean.sigma)
            self.forwards[1] = 0
            following = out[0] if isinstance(out, tuple) else out.prev_sample
            self.last = following
            if self.left_out + k + 1 < len(self.pipe.scheduler.timesteps):
                whole = self.whole(following, self.given)
                edited = self.edit_x_t(k + 1, whole)
                following = following if edited is whole else self.changing(edited, following)
            self.noise_state = torch.get_rng_state()  # an edit may draw
            if isinstance(out, tuple):
                return (following, *out[1:])
            out.prev_sample = following
            return out

        return StandIn(original, step)

    def _observe(self, k: int, arguments: dict[str, Any]) -> Clean:
        """Keep latent and prediction of a step, and let x0hat be edited."""
        run, given = self.run, arguments.get("pred_original_sample") is not None
        clean = clean_at(self.pipe.scheduler, self.left_out + k, given)
        sample, v = self.whole(arguments["sample"], self.given), self.whole(arguments["model_output"], None)
        estimate = clean.estimate(sample, v)
        x0hat = self.edit_x0hat(k, estimate)
        if x0hat is not None and not torch.equal(x0hat, estimate):  # the way back to the prediction rounds
            v = clean.prediction(sample, x0hat)
            arguments["model_output"] = self.changing(v, arguments["model_output"])
            if given:
                arguments["pred_original_sample"] = arguments["model_output"]
        run.x_t.append(sample.clone(memory_format=torch.contiguous_format))
        run.v.append(v.clone(memory_format=torch.contiguous_format))
        run.clean.append(clean)
        run.timesteps.append(float(arguments["timestep"]))
        return clean

    def _keep_generators(self, moment: str, arguments: Mapping[str, Any]) -> None:
        """Keep the states of the generators among the arguments of a call; in a replay, restore the recorded ones."""
        found = generators.listed(arguments.get("generator"))
        if self.generator_states is not None:
            generators.restore(found, self.generator_states.get(moment, []))
        self.run.generators[moment] = [g.get_state() for g in found]

    def _check_noise(self) -> None:
        """Whether noise came from PyTorch's global generator since the pipeline last got control."""
        self.run.unseeded |= not torch.equal(self.noise_state, torch.get_rng_state())

    def _prepare_latents(self, original: Callable) -> Callable:
        signature = inspect.signature(original)

        @functools.wraps(original)
        def prepare(*args: Any, **kwargs: Any) -> Any:
            arguments = signature.bind(*args, **kwargs).arguments
            if self.run.v:
                raise InterpError(
                    "the pipeline starts another section of the video after its denoising loop: ask for fewer frames"
                )
            prepared = self.prepared_override
            if prepared is None:
                prepared = original(*args, **kwargs)
            self._keep_generators("prepared", arguments)
            latents, *rest = prepared if isinstance(prepared, tuple) else (prepared,)
            self.run.prepared, self.rows = (latents.clone(), *rest), latents.shape[0]  # some pipelines write into theirs
            self.run.dims = self.adapter.layout.prepared_dims(latents, arguments, self.pipe)
            canonical = self.canonical(latents)
            config = self.pipe.transformer.config
            count = self.adapter.channels(config, canonical.shape[1])
            state = canonical[:, :count]
            self.on_prepared(state, self.planned)
            edited = self.edit_x_t(0, state)
            self.given = self.adapter.given(config, edited, self.run.prepared).clone()
            if edited is not state:
                latents = self.native(torch.cat([edited, canonical[:, count:]], dim=1), latents)
            self.noise_state = torch.get_rng_state()
            return (latents, *rest) if isinstance(prepared, tuple) else latents

        return prepare

    def _recalled(self, original: Callable) -> Callable:
        """A method whose results are kept, and come from the recording in a replay."""

        @functools.wraps(original)
        def recall(*args: Any, **kwargs: Any) -> Any:
            if self.encoded_override is not None:
                found = self.encoded_override[len(self.run.encoded)]
            else:
                found = original(*args, **kwargs)
            self.run.encoded.append(found)
            self.noise_state = torch.get_rng_state()
            return found

        return recall

    def _get_timesteps(self, original: Callable) -> Callable:
        @functools.wraps(original)
        def get(*args: Any, **kwargs: Any) -> Any:
            timesteps, *rest = original(*args, **kwargs)
            self.planned = len(timesteps)
            self.left_out = len(self.pipe.scheduler.timesteps) - self.planned
            return (timesteps, *rest)

        return get

    def _set_timesteps(self, original: Callable) -> Callable:
        def set_timesteps(*args: Any, **kwargs: Any) -> Any:
            self.timed = True
            return original(*args, **kwargs)

        return StandIn(original, set_timesteps)

    @contextlib.contextmanager
    def set_up(self) -> Iterator[None]:
        """Swap the stand-ins in, and everything back at the end."""
        pipe, scheduler = self.pipe, self.pipe.scheduler
        check_scheduler(scheduler)
        check_pipeline(pipe, (engine.module for engine in self.engines.values()))
        kept = {name: getattr(pipe, name) for name in self.engines}
        for name, engine in self.engines.items():
            if kept[name] is not engine.module:
                raise InterpError(f"pipe.{name} was replaced since this model was made: make another with from_pipeline(pipe)")
            engine.ready()
        ended: list[None] = []  # the pipeline offloads its modules at the end, when the experts must be themselves again
        try:
            pipe.maybe_free_model_hooks = lambda: ended.append(None)
            for name, engine in self.engines.items():
                object.__setattr__(pipe, name, Proxy(self, engine))
            scheduler.step = self._scheduler_step(scheduler.step)
            scheduler.set_timesteps = self._set_timesteps(scheduler.set_timesteps)
            pipe.prepare_latents = self._prepare_latents(pipe.prepare_latents)
            for name in ("encode_prompt", *self.adapter.recalls):
                if hasattr(pipe, name):
                    setattr(pipe, name, self._recalled(getattr(pipe, name)))
            if hasattr(pipe, "get_timesteps"):
                pipe.get_timesteps = self._get_timesteps(pipe.get_timesteps)
            yield
        finally:
            for name, module in kept.items():
                object.__setattr__(pipe, name, module)
            for name in ("step", "set_timesteps"):
                scheduler.__dict__.pop(name, None)
            for name in (*REPLACED, *self.adapter.recalls):
                pipe.__dict__.pop(name, None)
            if ended:
                pipe.maybe_free_model_hooks()

    def play(self, **kwargs: Any) -> Run:
        """Run the pipeline to its final latents. InterpError for a call that the adapter refuses."""
        parameters = inspect.signature(type(self.pipe).__call__).parameters.values()
        reason = self.adapter.refuses_call(self.pipe, {p.name: p.default for p in parameters} | kwargs)
        if reason is not None:
            raise InterpError(f"{type(self.pipe).__name__} cannot be followed in this call: {reason}")
        with self.set_up(), torch.no_grad():
            out = self.pipe(**kwargs, output_type="latent", return_dict=False)
        self.run.latents = self._final(latents_of(self.pipe, out)).clone(memory_format=torch.contiguous_format)
        self.run.beside = tuple(out[1:])
        return self.run

    def _final(self, out: Tensor) -> Tensor:
        """The final latents, from what the pipeline returned."""
        own = self.whole(self.last, self.given)
        if self.adapter.returned(self.pipe, own) is not own:  # in another scale
            return own
        final = self.canonical(out)
        before = final.shape[2] - self.run.dims[0]
        if before < 0:  # some pipelines do not return their condition's frame
            return own
        if before > 0:
            self.run.lead = final[:, :, :before].clone()
        return final[:, :, before:]
