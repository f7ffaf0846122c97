"""HookedVideoPipeline: a diffusers video pipeline whose every activation has a name."""

from __future__ import annotations

import contextlib
import copy
import inspect
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cos_interp.interp import batch
from cos_interp.interp.address import BRANCHES, Address
from cos_interp.interp.batch import described
from cos_interp.interp.cache import ActivationCache
from cos_interp.interp.cache_plan import DEFAULT_BUDGET, CachePlan, CacheRequest, Reduce, Steps, Tokens, requested
from cos_interp.interp.call import FRAMES, check_call, checked_output_type, one_row, own_words
from cos_interp.interp.errors import InterpError, unknown_hook
from cos_interp.interp.families import decoding
from cos_interp.interp.families.adapter import Adapter
from cos_interp.interp.families.decoding import postprocessed, to_uint8
from cos_interp.interp.families.sites import EXPERTS
from cos_interp.interp.families.unsupported import PIPELINES
from cos_interp.interp.gradient.playing import swept
from cos_interp.interp.gradient.sweep import Keep
from cos_interp.interp.gradient.taking import Gradients, taken
from cos_interp.interp.gradient.target import Metric, Target, target_of
from cos_interp.interp.hooking import TRAJECTORY, EditFn, FwdHook, Hooked, checked_hooks, kind_of
from cos_interp.interp.loading import load_pipeline
from cos_interp.interp.own_call import OwnCall, named
from cos_interp.interp.places import Place
from cos_interp.interp.run.director import Director
from cos_interp.interp.run.door import CallTracer, TracedCall
from cos_interp.interp.run.engine import ExpertEngine
from cos_interp.interp.run.guidance import guided
from cos_interp.interp.run.several import several
from cos_interp.interp.run.stage import Stage
from cos_interp.interp.run.standins import silent
from cos_interp.interp.scalars import has_numbers
from cos_interp.interp.selecting import numbers, whole, words
from cos_interp.interp.trajectory import Run
from cos_interp.interp.views import AXES, TokenGrid

StageOf = Callable[[Any, Mapping[str, ExpertEngine], Director], Stage]


class HookedVideoPipeline:
    """A diffusers video pipeline that runs as it did, and whose activations are read and edited by name.

    Make one with :meth:`from_pretrained` or :meth:`from_pipeline`. Names follow TransformerLens
    (``blocks.3.attn.hook_z``); :attr:`hook_names` lists them, and :class:`~cos_interp.interp.address.Address` says how steps,
    branches, tokens and heads are selected. ``engines`` are the transformers by name, ``defaults`` keywords of every run, and
    ``small`` says that it came with some.

    Reading changes no bit of a run. Not for concurrent use: a second run at a time raises InterpError, as do pipelines that
    cannot be followed (compiled modules, block caches, schedulers with several model calls a step), with the remedy.
    """

    def __init__(self, pipe: Any, name: str = "pipeline", defaults: dict[str, Any] | None = None):
        self.pipe, self.name, self.defaults, self.small = pipe, name, dict(defaults or {}), bool(defaults)
        for kind in type(pipe).__mro__:
            if kind.__name__ in PIPELINES:
                raise InterpError(f"{type(pipe).__name__} is not supported: {PIPELINES[kind.__name__]}")
        experts = {n: getattr(pipe, n, None) for n in EXPERTS}
        self.engines = {n: ExpertEngine(n, m) for n, m in experts.items() if m is not None}
        if not self.engines:
            raise InterpError(f"{type(pipe).__name__} has none of the components {', '.join(EXPERTS)}")
        self.adapter: Adapter = next(iter(self.engines.values())).adapter
        self._hooks: dict[object, list[tuple[Address, EditFn]]] = {}  # by the block that they are of
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> HookedVideoPipeline:
        """A model with weights of its own, without hooks: for another thread, or to change."""
        made = type(self)(copy.deepcopy(self.pipe, memo), self.name, copy.deepcopy(self.defaults, memo))
        made.small = self.small
        return made

    def __reduce__(self) -> Any:
        raise InterpError("a model is not pickled: save its pipeline with model.pipe.save_pretrained(folder), or pickle its runs")

    def __repr__(self) -> str:
        experts, family = "/".join(self.engines), self.adapter.family
        kind = type(self.pipe).__name__
        name = "" if self.name == kind else f"{self.name}: "
        facts = f"{kind}, {family}, {experts}, {self.layers} layers, {len(self.hook_names)} hook names"
        return f"HookedVideoPipeline({name}{facts})"

    @classmethod
    def from_pretrained(cls, name: str | Path, **kwargs: Any) -> HookedVideoPipeline:
        """Load ``"organism"``, ``"organism:NAME"`` (a variant that ships with it: ``cos organism list``), a local folder in the
        diffusers format, a hub id (pass ``revision``), or ``tiny:NAME``: one of the small random pipelines of
        :mod:`cos_interp.interp.families.tiny`, with its sizes as defaults.

        Keywords go to diffusers: ``dtype``, ``device_map``, ``quantization_config``, ... Code of the repository does not
        run, unless you pass ``trust_remote_code=True`` yourself. LoRA weights, offloading and quantisation are a matter of
        ``.pipe``, before or after it is wrapped: see docs/loading.md. Raises InterpError when there is no pipeline to load.
        """
        if not isinstance(name, (str, Path)):
            raise InterpError(f"from_pretrained({name!r}): give a name or a folder; from_pipeline wraps what is loaded")
        if str(name).startswith("tiny:"):
            if unknown := [key for key in kwargs if key not in ("dtype", "torch_dtype")]:
                raise InterpError(f"{name} is built, not loaded, and takes no {unknown[0]}: only dtype")
            return cls._tiny(str(name), kwargs.get("dtype", kwargs.get("torch_dtype")))
        pipe, defaults = load_pipeline(name, kwargs)
        return cls(pipe, str(name), defaults)

    @classmethod
    def _tiny(cls, name: str, dtype: torch.dtype | None) -> HookedVideoPipeline:
        from cos_interp.interp.families import tiny

        key = name.removeprefix("tiny:")
        if key not in tiny.TINY:
            raise InterpError(f"no model {name!r}: the tiny pipelines are {', '.join(tiny.TINY)}")
        sizes = ("height", "width", "num_frames", *FRAMES, "max_sequence_length", "use_resolution_binning")
        pipe = tiny.build(key) if dtype in (None, torch.float32) else tiny.build(key).to(dtype)
        return cls(pipe, name, {k: v for k, v in tiny.call(key).items() if k in sizes})

    @classmethod
    def from_pipeline(cls, pipe: Any) -> HookedVideoPipeline:
        """Wrap a pipeline that is built already; it stays usable as it was. See docs/loading.md for what it may carry.

        InterpError for what is no pipeline; a model that is wrapped already gives its own.
        """
        return pipe if isinstance(pipe, cls) else cls(pipe, type(pipe).__name__)

    # --- as the pipeline itself -----------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The pipeline's own call, for scripts that were written for it: ``model("a ball").frames[0]``. It returns what the
        pipeline returns, bit for bit, in the form that ``output_type`` and ``return_dict`` say; ``.run`` of it is the run.

        InterpError for what :meth:`run` refuses.
        """
        given = named(self.pipe, args, kwargs)
        own = OwnCall({**self.defaults, **given})
        shown = {"output_type": self.default("output_type"), **given}
        return own.with_run(self._hooked(shown, stage=own.stage)[0])

    def to(self, *args: Any, **kwargs: Any) -> HookedVideoPipeline:
        """Move the pipeline, as its own ``to`` does; returns the model."""
        self.pipe.to(*args, **kwargs)
        return self

    def __getattr__(self, name: str) -> Any:
        """What the model itself does not have is the pipeline's: ``model.vae``, ``model.enable_model_cpu_offload()``."""
        if name.startswith("_") or "pipe" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        return getattr(self.pipe, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """A component is the pipeline's: ``model.scheduler = ...``."""
        pipe = self.__dict__.get("pipe")
        target = pipe if pipe is not None and name in getattr(pipe, "components", ()) else self
        object.__setattr__(target, name, value) if target is self else setattr(target, name, value)

    @property
    def hook_names(self) -> list[str]:
        """All names in execution order; every expert has the same ones."""
        names = list(dict.fromkeys(n for engine in self.engines.values() for n in engine.points))
        return ["hook_x_t", *names, "hook_x0hat"]

    @property
    def layers(self) -> int:
        """How many blocks a transformer has."""
        return next(iter(self.engines.values())).layers

    def default(self, name: str) -> Any:
        """What the model's own call defaults, else the pipeline's signature, say of a keyword; None when neither does."""
        found = inspect.signature(type(self.pipe).__call__).parameters.get(name)
        return self.defaults.get(name, None if found is None or found.default is found.empty else found.default)

    @property
    def frame_rate(self) -> float | None:
        """Frames a second of its videos: a keyword of its call, else what the pipeline's own example plays; None where neither is
        there."""
        for name in ("frame_rate", "fps"):
            if isinstance(said := self.default(name), (int, float)) and said > 0:
                return float(said)
        shown = re.search(r"export_to_video\(.*\bfps=(\d+)", type(self.pipe).__call__.__doc__ or "")
        return None if shown is None else float(shown[1])

    def token_grid(self, latents: Tensor) -> TokenGrid:
        """The token grid of latents ``[batch, channel, frame, row, col]``. InterpError for anything else."""
        if not isinstance(latents, Tensor) or latents.ndim != 5 or 0 in latents.shape:
            raise InterpError(f"latents are [batch, channel, frame, row, col], {described(latents)} was given")
        frames, rows, cols = latents.shape[2:]
        grid = self.adapter.grid(next(iter(self.engines.values())).module, (frames, rows, cols))
        if not grid.rows or not grid.cols or rows % grid.rows or cols % grid.cols:
            raise InterpError(
                f"{rows} x {cols} latent cells are not whole tokens, of which there would be {grid.rows} x {grid.cols}"
            )
        return grid

    def patch(self, latents: Tensor) -> tuple[int, int, int]:
        """Latent cells of one token along (frame, row, col)."""
        frames, rows, cols = (n // t for n, t in zip(latents.shape[2:], self.token_grid(latents).shape, strict=True))
        return frames, rows, cols

    @property
    def takes_image(self) -> bool:
        """Whether the pipeline is conditioned on a first frame."""
        return "image" in inspect.signature(type(self.pipe).__call__).parameters

    @property
    def has_hooks(self) -> bool:
        """Whether edits of ``with model.hooks(...)`` are on."""
        return bool(self._hooks)

    @property
    def block_calls(self) -> int:
        """Transformer blocks run so far, each row of a batch counted."""
        return sum(engine.block_calls for engine in self.engines.values())

    # --- running -----------------------------------------------------------------------------------------------

    def run(self, **kwargs: Any) -> Run:
        """Generate. Keywords go to the pipeline, on top of the model's own defaults.

        ``seed``: an integer for one video, a list of integers for a batch (one a row, so that a row does not depend on
        its neighbours). ``prompt`` and ``image`` may be lists of one length: one video each. ``output_type`` is that of
        :attr:`Run.frames <cos_interp.interp.trajectory.Run.frames>`: nothing is decoded before somebody asks. Raises InterpError
        for keywords that the pipeline does not take, and where it cannot be followed.
        """
        return self._hooked(kwargs)[0]

    def run_with_cache(
        self,
        *,
        names: str | Sequence[str] = "blocks.*.hook_resid_post",
        steps: Steps = None,
        branches: str | Sequence[str] | None = None,
        tokens: Tokens = None,
        reduce: str | Reduce | None = None,
        max_bytes: int = DEFAULT_BUDGET,
        place: Place | None = None,
        **kwargs: Any,
    ) -> tuple[Run, ActivationCache]:
        """Generate and keep activations. Edits that are active are seen by the cache.

        ``names`` are hook names, which may hold ``*``; ``steps`` a number, several, a range, a slice, or ``"all"``. ``tokens`` is
        a bool mask ``[frame, row, col]`` over the token grid or ``{"frame": [...], ...}``. ``reduce`` is ``"norm"`` (L2 over
        channels), ``"mean"`` (over tokens) or a function of an activation, which gets a tensor and gives one. ``place``: a
        :mod:`place <cos_interp.interp.places>` of its own in host memory or on disk; without one activations stay where they are
        computed. See :class:`~cos_interp.interp.cache.ActivationCache` for what is kept, in which shapes.

        Raises UnknownHook for a name that the model does not have, InterpError for steps, branches or tokens that the run does
        not have, and BudgetExceeded before the first transformer call when more than ``max_bytes`` would be kept.
        """
        return self._hooked(kwargs, requested(self.matching(names), steps, branches, tokens, reduce, max_bytes, place))

    def gradients(
        self,
        metric: Metric,
        *,
        of: str | Address | None = None,
        run: Run | None = None,
        names: str | Sequence[str] = "blocks.*.hook_resid_post",
        steps: Steps = None,
        branches: str | Sequence[str] | None = None,
        tokens: Tokens = None,
        reduce: str | Reduce | None = None,
        max_bytes: int = DEFAULT_BUDGET,
        **kwargs: Any,
    ) -> Gradients:
        """The gradient of one number with respect to activations, all of them by one sweep back over a run.

        ``metric`` gets the final latents ``[1, channel, frame, row, col]``, or with ``of`` the activation at one address
        (``"hook_x0hat @ step=5"``, ``"blocks.3.attn.hook_pattern @ step=4, branch=cond, head=2"``) with named axes, and gives one
        number by torch operations. The gradient is the whole one: through the rest of the step, guidance, the solver with what it
        remembers, and all later steps. ``run`` is a run of one video by this model; without it, the other keywords make one as
        :meth:`run` does. ``names``, ``steps``, ``branches``, ``tokens``, ``reduce`` and ``max_bytes`` are those of
        :meth:`run_with_cache`, and select and reduce gradients. Costs about two generations (2.3 on the organism), and the graph
        of one forward at a time.

        Raises InterpError for a metric that autograd does not see through, for hooks that are on, for a run of several videos
        or of another model, and for a loop that does not move as its gradient says, which is measured in every sweep.
        """
        request = requested(self.matching(names), steps, branches, tokens, reduce, max_bytes)
        address = None if of is None else self._known(of if isinstance(of, Address) else Address.parse(of))
        if run is not None and kwargs:
            raise InterpError(f"run= was given, and {', '.join(kwargs)} as well: keywords of the pipeline make another run")
        made = self.run(**kwargs) if run is None else run
        target = None if address is None else self._target(address, made)
        return taken(self.sweep_back, self.engines, made, metric, target, request)

    def sweep_back(self, run: Run, metric: Metric, target: Target | None, plan: CachePlan, keep: Keep) -> float:
        """One sweep back over a run, as :meth:`gradients` makes it: every gradient that a plan wants goes to ``keep``, with the
        activation that it is of. Returns the metric's value."""
        if self._hooks:
            raise InterpError("gradients are of runs without edits: leave the `with model.hooks(...)` block")
        with self._alone():
            return swept(self._played, self.pipe, self.engines, run, metric, target, plan, keep)

    def _target(self, address: Address, run: Run) -> Target:
        names = self.matching(address.name)
        return target_of(address, names, run, between=names[0] in TRAJECTORY)

    def run_with_hooks(self, *, fwd_hooks: Sequence[FwdHook], **kwargs: Any) -> Run:
        """Generate with edits: ``fwd_hooks=[("blocks.3.attn.hook_z @ step=4:8, branch=cond, head=2", function), ...]``.

        A function gets ``(activation, hook)``: a copy of the addressed region with all axes kept, and where it belongs
        (:class:`~cos_interp.interp.run.clock.Hook`); what it returns is written back, None changes nothing. Raises AddressError
        for a malformed address, UnknownHook for one that names nothing, InterpError where a function returns another shape.
        """
        with self.hooks(fwd_hooks=fwd_hooks):
            return self.run(**kwargs)

    def trace_call(
        self, step: Any, branch: str | None = "cond", expert: str | None = None, **kwargs: Any
    ) -> contextlib.AbstractContextManager[TracedCall]:
        """Plain nnsight inside one transformer call: ``with model.trace_call(step=4, prompt=...) as call:``.

        In the block ``call`` is the transformer's nnsight envoy in the call of that step and branch of a run of the pipeline
        with these keywords: ``call.blocks[3].output``, ``.input``, ``.source``, in the model's own names and layouts. Values are
        kept with ``nnsight.save(x)``; after the block ``call.run`` is the finished run. Where both branches share a forward,
        the block sees and edits the rows of its branch alone; ``branch=None`` means the whole forward of the step. Raises
        InterpError when the run is over and the call never came.
        """
        for what, asked, there in (("branch", branch, BRANCHES), ("expert", expert, tuple(self.engines))):
            if asked is not None and asked not in there:
                raise InterpError(f"{what}={asked!r}: there are {', '.join(there)}")
        wanted = numbers(step, self._steps({**self.defaults, **kwargs}), "step")
        if len(wanted) != 1:
            raise InterpError(f"step={step!r}: a block runs in one call, give one step")
        return CallTracer(lambda around: self.run_directed(around, **kwargs), wanted[0], branch, expert)

    def run_directed(self, around: Callable[[Director], Director], **kwargs: Any) -> Run:
        """Generate as :meth:`run` does, with another director around the one that serves this model's hooks.

        See :mod:`cos_interp.interp.run.director`.
        """
        return self._hooked(kwargs, around=around)[0]

    def play(self, director: Director, **kwargs: Any) -> Run:
        """Run the pipeline with keywords of its own under a director: neither the model's defaults nor its hooks have a part."""
        with self._alone():
            return self._played(director, kwargs)

    @contextlib.contextmanager
    def hooks(self, fwd_hooks: Sequence[FwdHook]) -> Iterator[HookedVideoPipeline]:
        """Edits as in :meth:`run_with_hooks`, for all runs inside the block.

        Nested blocks add up, later ones act on what earlier ones returned.
        """
        added = [(self._known(Address.parse(address)), function) for address, function in checked_hooks(fwd_hooks)]
        block = object()  # blocks may end in another order than they began in
        self._hooks[block] = added
        try:
            yield self
        finally:
            del self._hooks[block]

    def decode(self, latents: Tensor, batch: int | None = None) -> np.ndarray:
        """Pixels uint8 ``[batch, pixel frame, height, width, 3]`` of latents ``[batch, channel, frame, row, col]``.

        ``batch`` videos are decoded at a time, for the memory; by default large ones alone, and small ones up to 16.
        """
        out, done = np.empty((0,), np.uint8), 0
        for part in self._decoded(latents, "np", batch):  # all of them are there once, and in floats those of a part alone
            clips = to_uint8(part)
            out = np.empty((len(latents), *clips.shape[1:]), np.uint8) if done == 0 else out
            out[done : done + len(clips)], done = clips, done + len(clips)
        return out

    def frames(self, latents: Tensor, output_type: str = "np", batch: int | None = None) -> Any:
        """The video of latents ``[batch, channel, frame, row, col]`` as the pipeline returns it with an ``output_type``.

        ``"np"``: floats in [0, 1] ``[batch, pixel frame, height, width, 3]``; ``"pt"``: a tensor
        ``[batch, pixel frame, 3, height, width]``; ``"pil"``: for every video a list of pictures. ``batch`` as in :meth:`decode`.
        """
        output_type = checked_output_type(output_type)
        if output_type == "latent":
            raise InterpError("output_type='latent': these are the latents; give np, pt or pil")
        parts = list(self._decoded(latents, output_type, batch))
        if output_type == "pil":
            return [video for part in parts for video in part]
        return torch.cat(parts) if output_type == "pt" else np.concatenate(parts)

    def _decoded(self, latents: Tensor, output_type: str, batch: int | None) -> Iterator[Any]:
        """The videos of latents, so many at a time."""
        if not has_numbers(latents) or latents.ndim != 5 or not latents.is_floating_point() or 0 in latents.shape:
            given = described(latents)
            raise InterpError(f"latents are floats [batch, channel, frame, row, col] of at least one video, {given} was given")
        size = decoding.at_a_time(self.pipe, latents) if batch is None else whole(batch)
        if size is None or size < 1:
            raise InterpError(f"batch={batch!r}: give a whole number of videos of at least 1")
        for part in latents.split(size):
            with torch.no_grad():  # not around the yield, where the caller goes on
                pixels = decoding.decoded(self.pipe, self.adapter, part)
            yield postprocessed(self.pipe, pixels, output_type)
        self.pipe.maybe_free_model_hooks()  # offloads the VAE where offloading is on

    # --- inside ------------------------------------------------------------------------------------------------

    def matching(self, patterns: str | Sequence[str]) -> list[str]:
        """The hook names that a pattern or several name; UnknownHook for a pattern without any."""
        patterns = words(patterns, "names", "hook names or patterns like 'blocks.*.hook_resid_post'; model.hook_names lists them")
        names = dict.fromkeys(self.hook_names, False)
        for pattern in patterns:
            if "@" in pattern:
                raise InterpError(f"names={pattern!r}: a name without its selectors; say steps=, branches= and tokens= for these")
            address = Address(pattern)
            found = [pattern] if pattern in names else [name for name in names if address.matches(name)]
            if not found:
                raise unknown_hook(pattern, list(names))
            names |= dict.fromkeys(found, True)
        return [name for name, asked in names.items() if asked]

    def _known(self, address: Address) -> Address:
        names = self.matching(address.name)
        if address.expert is not None and address.expert not in self.engines:
            raise InterpError(f"{address}: this model has no expert {address.expert!r}, only {', '.join(self.engines)}")
        shared = [name for name in names if name in TRAJECTORY]
        if shared and (address.branch is not None or address.expert is not None):
            raise InterpError(f"{address}: {shared[0]} lies between the calls, and has no branch and no expert: leave them out")
        for key in ("frame", "row", "col", "head"):
            for name in names if getattr(address, key) is not None else ():
                if key not in (axes := AXES[kind_of(self.engines, name)]):
                    raise InterpError(f"{address}: {name} has the axes {axes}, not {key}; name only what has it")
        return address

    @property
    def one_row(self) -> bool:
        """Whether a run of this pipeline makes one video, and no batch."""
        return one_row(self.pipe)

    def call_arguments(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The pipeline's keywords: the model's defaults, then the caller's; ``seed`` becomes generators."""
        kwargs = {**own_words(self.pipe, self.defaults), **own_words(self.pipe, kwargs)}
        check_call(self.pipe, {k: v for k, v in kwargs.items() if k != "seed"})
        if kwargs.get("seed") is not None and kwargs.get("generator") is not None:
            raise InterpError("seed and generator were both given: give one of them, each says which noise is drawn")
        kwargs.pop("return_dict", None)  # what comes back is a Run, however the pipeline would have returned its video
        kwargs.pop("output_type", None)  # a matter of Run.frames
        if isinstance(kwargs.get("latents"), Tensor):
            kwargs["latents"] = kwargs["latents"].clone()  # some pipelines write into theirs
        if kwargs.get("callback_on_step_end") is not None:
            kwargs |= batch.watched(kwargs["callback_on_step_end"])
        rows = batch.rows_of(kwargs)
        batch.check_latents(kwargs)
        kwargs |= batch.single_pictures(kwargs)
        seed = kwargs.pop("seed", None)
        if seed is not None:
            kwargs["generator"] = batch.generators(seed, rows, listed=isinstance(kwargs.get("prompt"), list))
        return kwargs

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Around a run. InterpError while another one is on."""
        if not self._lock.acquire(blocking=False):
            raise InterpError("this model is running already; use one model a thread")
        try:
            yield
        finally:
            self._lock.release()

    def _played(self, director: Director, kwargs: dict[str, Any], stage: StageOf = Stage) -> Run:
        with silent(self.pipe), guided(self.pipe, kwargs) as own, batch.told_of(self.pipe, kwargs):
            run = stage(self.pipe, self.engines, director).play(**own)
        run.kwargs, run.decoder = kwargs, self.frames
        return run

    def _hooked(
        self,
        kwargs: dict[str, Any],
        request: CacheRequest | None = None,
        around: Callable[[Director], Director] = lambda director: director,
        stage: StageOf = Stage,
    ) -> tuple[Run, ActivationCache]:
        """A run with the hooks of this model, and what it kept."""
        with self._alone():
            output_type = checked_output_type(kwargs.get("output_type"))
            kwargs = self.call_arguments(kwargs)
            edits = [edit for added in self._hooks.values() for edit in added]
            hooked = Hooked(self.pipe, self.engines, edits, self._steps(kwargs), request)
            director = around(hooked)
            if batch.rows_of(kwargs) > 1:
                director, kwargs = several(director, kwargs, self._played, type(self.pipe).__name__, self._apart)
            run = self._played(director, kwargs, stage)
            run.output_type, run.edited = output_type, bool(edits)
            hooked.check_done(run)
            return run, hooked.cache

    def _apart(self, kwargs: dict[str, Any]) -> bool:
        """Whether rows of a call must be begun one by one. What one generator draws for all is left to the pipeline's batch."""
        if not isinstance(kwargs.get("generator"), list):
            return False
        apart = type(self.pipe).__name__.startswith(self.adapter.apart) or self.adapter.one_video(self.pipe, kwargs)
        return apart or kwargs.get("image") is not None

    def _steps(self, kwargs: dict[str, Any]) -> int:
        """The steps that a call asks for, as far as its keywords say; the pipeline's own timesteps decide."""
        for name in ("timesteps", "sigmas"):
            if kwargs.get(name) is not None:
                return len(kwargs[name])
        return kwargs.get("num_inference_steps") or self.default("num_inference_steps")
