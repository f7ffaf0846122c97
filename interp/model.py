"""HookedVideoPipeline: a diffusers video pipeline whose every activation has a name."""

from __future__ import annotations

import contextlib
import inspect
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cos_interp.interp.address import BRANCHES, Address, as_index, chosen
from cos_interp.interp.cache import DEFAULT_BUDGET, ActivationCache, CachePlan, as_reduce, token_mask
from cos_interp.interp.errors import InterpError, unknown_hook
from cos_interp.interp.families.adapter import Adapter, Point
from cos_interp.interp.families.decoding import to_frames
from cos_interp.interp.families.unsupported import PIPELINES
from cos_interp.interp.run.clock import Call, Hook
from cos_interp.interp.run.door import CallTracer, TracedCall
from cos_interp.interp.run.engine import ExpertEngine, split_visitor
from cos_interp.interp.run.stage import EXPERTS, CallHandler, Stage
from cos_interp.interp.trajectory import Run
from cos_interp.interp.views import AXES, TokenGrid, axes_of, put, region, select

EditFn = Callable[[Tensor, Hook], Tensor | None]
FwdHook = tuple[str, EditFn]
TRAJECTORY = {"hook_x_t": "latent", "hook_x0hat": "latent"}  # between calls; served by the stage, not by a transformer
TEXT = 512  # keys that a joint attention has for its text, at most in the released models' defaults
DEFAULTS_FILE = "call_defaults.json"
ORGANISM = Path(__file__).resolve().parent.parent / "organism" / "weights"


class HookedVideoPipeline:
    """Runs a video pipeline and reads or edits what happens inside. Not for concurrent use: calls take a lock."""

    def __init__(self, pipe: Any, name: str = "pipeline", defaults: dict[str, Any] | None = None):
        self.pipe, self.name, self.defaults = pipe, name, dict(defaults or {})
        for kind in type(pipe).__mro__:
            if kind.__name__ in PIPELINES:
                raise InterpError(f"{type(pipe).__name__} is not supported: {PIPELINES[kind.__name__]}")
        experts = {n: getattr(pipe, n, None) for n in EXPERTS}
        self.engines = {n: ExpertEngine(n, m) for n, m in experts.items() if m is not None}
        if not self.engines:
            raise InterpError(f"{type(pipe).__name__} has none of the components {', '.join(EXPERTS)}")
        self.adapter: Adapter = next(iter(self.engines.values())).adapter
        pipe.set_progress_bar_config(disable=True)
        self._hooks: list[tuple[Address, EditFn]] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        experts, family = "/".join(self.engines), self.adapter.family
        kind = f"{type(self.pipe).__name__}, {family}, {experts}, {self.layers} layers, {len(self.hook_names)} hook names"
        return f"HookedVideoPipeline({self.name}: {kind})"

    @classmethod
    def from_pretrained(cls, name: str | Path, **kwargs: Any) -> HookedVideoPipeline:
        """Load ``"organism"``, a local folder in the diffusers format, a hub id (pass ``revision``), or ``tiny:NAME``: one of
        the small random pipelines of :mod:`cos_interp.interp.families.tiny`, with its sizes as defaults.

        Keywords go to diffusers: ``torch_dtype``, ``device_map``, ``quantization_config``, ... Code of the repository does not
        run, unless you pass ``trust_remote_code=True`` yourself. LoRA weights, offloading and quantisation are a matter of
        ``.pipe``, before or after it is wrapped: see docs/loading.md. Raises InterpError when there is no pipeline to load.
        """
        if str(name).startswith("tiny:"):
            return cls._tiny(str(name))
        folder = ORGANISM if str(name) == "organism" else Path(name)
        local = folder.is_dir()
        if local and not (folder / "model_index.json").is_file():
            raise InterpError(f"{folder} is no diffusers pipeline: it has no model_index.json")
        if not local and (str(name) == "organism" or str(name).count("/") != 1 or str(name).startswith((".", "/"))):
            raise InterpError(
                f"no model {str(name)!r}: give 'organism' (where it is installed), a folder that holds a diffusers "
                "pipeline, a hub id owner/name, or tiny:NAME"
            )
        from diffusers import DiffusionPipeline
        from diffusers.utils.logging import disable_progress_bar
        from safetensors import SafetensorError

        disable_progress_bar()
        try:
            pipe = DiffusionPipeline.from_pretrained(folder if local else str(name), **kwargs)
        except (OSError, ValueError, RuntimeError, ImportError, AttributeError, SafetensorError) as error:
            raise InterpError(f"{name} could not be loaded: {(str(error).strip() or repr(error)).splitlines()[0]}") from error
        defaults = folder / DEFAULTS_FILE
        return cls(pipe, str(name), json.loads(defaults.read_text()) if local and defaults.is_file() else None)

    @classmethod
    def _tiny(cls, name: str) -> HookedVideoPipeline:
        from cos_interp.interp.families import tiny

        key = name.removeprefix("tiny:")
        if key not in tiny.TINY:
            raise InterpError(f"no model {name!r}: the tiny pipelines are {', '.join(tiny.TINY)}")
        sizes = ("height", "width", "num_frames", "max_sequence_length")
        return cls(tiny.build(key), name, {k: v for k, v in tiny.call(key).items() if k in sizes})

    @classmethod
    def from_pipeline(cls, pipe: Any) -> HookedVideoPipeline:
        """Wrap a pipeline that is built already; it stays usable as it was. See docs/loading.md for what it may carry."""
        return cls(pipe, type(pipe).__name__)

    @property
    def hook_names(self) -> list[str]:
        """All names in execution order; every expert has the same ones."""
        names = list(dict.fromkeys(n for engine in self.engines.values() for n in engine.points))
        return ["hook_x_t", *names, "hook_x0hat"]

    @property
    def layers(self) -> int:
        return next(iter(self.engines.values())).layers

    def default(self, name: str) -> Any:
        """What the model's own call defaults, else the pipeline's signature, say of a keyword; None when neither does."""
        found = inspect.signature(type(self.pipe).__call__).parameters.get(name)
        return self.defaults.get(name, None if found is None or found.default is found.empty else found.default)

    def token_grid(self, latents: Tensor) -> TokenGrid:
        """The token grid of latents ``[batch, channel, frame, row, col]``."""
        return self.adapter.grid(next(iter(self.engines.values())).module, tuple(latents.shape[2:]))

    def patch(self, latents: Tensor) -> tuple[int, int, int]:
        """Latent cells of one token along (frame, row, col)."""
        frames, rows, cols = (n // t for n, t in zip(latents.shape[2:], self.token_grid(latents).shape, strict=True))
        return frames, rows, cols

    @property
    def takes_image(self) -> bool:
        """Whether the pipeline is conditioned on a first frame."""
        return "image" in inspect.signature(type(self.pipe).__call__).parameters

    @property
    def block_calls(self) -> int:
        """Transformer blocks run so far, each row of a batch counted."""
        return sum(engine.block_calls for engine in self.engines.values())

    # --- running -----------------------------------------------------------------------------------------------

    def run(self, *, handler: Callable[[CallHandler], CallHandler] | None = None, **kwargs: Any) -> Run:
        """Generate. Keywords go to the pipeline, on top of the model's own defaults.

        ``seed``: an integer for one video, a list of integers for a batch (one a row, so that a row does not depend on
        its neighbours). ``prompt`` and ``image`` may be lists of one length: one video each. ``handler`` wraps what answers
        the transformer calls (see interp.ensemble).
        """
        return self._play(kwargs, None, handler)[0]

    def run_with_cache(
        self,
        *,
        names: str | Sequence[str] = "blocks.*.hook_resid_post",
        steps: int | range | slice | Sequence[int] | str | None = None,
        branches: str | Sequence[str] | None = None,
        tokens: Tensor | dict[str, Iterable[int]] | None = None,
        reduce: str | Callable[[Tensor], Tensor] | None = None,
        max_bytes: int = DEFAULT_BUDGET,
        **kwargs: Any,
    ) -> tuple[Run, ActivationCache]:
        """Generate and keep activations. Edits that are active are seen by the cache.

        ``tokens`` is a bool mask over (frame, row, col) or ``{"frame": [...], ...}``; ``reduce`` is ``"norm"``, ``"mean"``
        or a function. Raises BudgetExceeded before the first transformer call when more than ``max_bytes`` would be kept.
        """
        spec = {"names": names, "steps": steps, "branches": branches, "tokens": tokens, "reduce": reduce}
        return self._play(kwargs, spec | {"budget": max_bytes})

    def run_with_hooks(self, *, fwd_hooks: Sequence[FwdHook], **kwargs: Any) -> Run:
        """Generate with edits. A function gets ``(activation, hook)``: a copy of the addressed region with all axes kept;
        what it returns is written back, None changes nothing."""
        with self.hooks(fwd_hooks=fwd_hooks):
            return self.run(**kwargs)

    def trace_call(
        self, step: int, branch: str | None = "cond", expert: str | None = None, **kwargs: Any
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
        return CallTracer(lambda handler: self.run(handler=handler, **kwargs), step, branch, expert)

    @contextlib.contextmanager
    def hooks(self, fwd_hooks: Sequence[FwdHook]) -> Iterator[HookedVideoPipeline]:
        """Edits for all runs inside the block; nested blocks add up, later ones act on what earlier ones returned."""
        added = [(self._known(Address.parse(address)), function) for address, function in fwd_hooks]
        kept = list(self._hooks)
        self._hooks = kept + added
        try:
            yield self
        finally:
            self._hooks = kept

    def decode(self, latents: Tensor, batch: int = 16) -> np.ndarray:
        """Pixels uint8 ``[batch, pixel frame, height, width, 3]`` of final or estimated latents, ``batch`` videos at a time."""
        parts = []
        with torch.no_grad():
            for part in latents.split(batch):
                pixels = self.adapter.decode(self.pipe, part.to(getattr(self.pipe, "_execution_device", part.device)))
                parts.append(to_frames(self.pipe, pixels))
            self.pipe.maybe_free_model_hooks()  # offloads the VAE where offloading is on
        return np.concatenate(parts)

    # --- inside ------------------------------------------------------------------------------------------------

    def matching(self, patterns: str | Sequence[str]) -> list[str]:
        """The hook names that a pattern or several name; UnknownHook for a pattern without any."""
        patterns = [patterns] if isinstance(patterns, str) else list(patterns)
        for pattern in patterns:
            if not any(Address(pattern).matches(n) for n in self.hook_names):
                raise unknown_hook(pattern, self.hook_names)
        return [n for n in self.hook_names if any(Address(p).matches(n) for p in patterns)]

    def _known(self, address: Address) -> Address:
        names = self.matching(address.name)
        if address.expert is not None and address.expert not in self.engines:
            raise InterpError(f"{address}: this model has no expert {address.expert!r}, only {', '.join(self.engines)}")
        for key in ("frame", "row", "col", "head"):
            if getattr(address, key) is not None and not any(key in AXES[self._kind(n)] for n in names):
                raise InterpError(f"{address}: {names[0]} has the axes {AXES[self._kind(names[0])]}, not {key}")
        return address

    def _kind(self, name: str) -> str:
        if name in TRAJECTORY:
            return TRAJECTORY[name]
        return next(e.points[name].kind for e in self.engines.values() if name in e.points)

    def call_arguments(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The pipeline's keywords: the model's defaults, then the caller's; ``seed`` becomes generators."""
        kwargs = {**self.defaults, **kwargs}
        for taken in ("output_type", "return_dict", "callback_on_step_end"):
            if taken in kwargs:
                raise InterpError(f"{taken} is used by the instrument itself: read Run.latents and Run.decode() instead")
        seed = kwargs.pop("seed", None)
        prompt = kwargs.get("prompt")
        embedded = [len(v) for name, v in kwargs.items() if name.startswith("prompt_embeds") and isinstance(v, Tensor)]
        rows = len(prompt) if isinstance(prompt, list) else max(embedded, default=1)
        if seed is not None:
            seeds = list(seed) if isinstance(seed, Iterable) else [seed]
            if len(seeds) != rows and (isinstance(prompt, list) or isinstance(seed, Iterable)):
                raise InterpError(f"{len(seeds)} seed(s) for {rows} prompt(s): give a list with one seed a prompt")
            made = [torch.Generator("cpu").manual_seed(int(s)) for s in seeds]
            kwargs["generator"] = made if isinstance(prompt, list) or len(made) > 1 else made[0]
        return kwargs

    def _play(
        self, kwargs: dict[str, Any], cache_spec: dict | None, handler: Callable[[CallHandler], CallHandler] | None = None
    ) -> tuple[Run, ActivationCache]:
        if not self._lock.acquire(blocking=False):
            raise InterpError("this model is running already; use one model a thread")
        try:
            kwargs = self.call_arguments(kwargs)
            steps = kwargs.get("num_inference_steps") or self.default("num_inference_steps")
            session = _Session(self, steps, cache_spec)
            stage = session.stage = Stage(self.pipe, self.engines, handler(session.call) if handler else session.call)
            stage.edit_x_t, stage.edit_x0hat, stage.on_prepared = session.x_t, session.x0hat, session.prepared
            images = kwargs.get("image")
            if isinstance(images, list):
                call = {**kwargs, **{n: kwargs.get(n) or self.default(n) for n in ("height", "width", "num_frames")}}
                stage.prepared_override = self.adapter.prepare_each(self.pipe, call)
                kwargs = {**kwargs, "image": images[0], "generator": None}
            run = stage.play(**kwargs)
            run.kwargs, run.decoder = kwargs, self.decode
            return run, session.cache
        finally:
            self._lock.release()


class _Session:
    """The hooks and the cache of one run."""

    def __init__(self, model: HookedVideoPipeline, steps: int, spec: dict | None):
        self.model, self.steps, self.cache = model, steps, ActivationCache()
        self.stage: Stage | None = None
        self.edits = list(model._hooks)
        self.spec, self.plan = spec, None
        if spec is not None:
            names, found = model.matching(spec["names"]), self._asked_steps(spec["steps"])
            branches = (spec["branches"],) if isinstance(spec["branches"], str) else spec["branches"]
            for branch in branches or ():
                if branch not in BRANCHES:
                    raise InterpError(f"unknown branch {branch!r}; there are {', '.join(BRANCHES)}")
            self.plan = CachePlan(
                tuple(names), found, None if branches is None else tuple(branches), None, as_reduce(spec["reduce"]),
                spec["budget"],
            )  # fmt: skip

    def _asked_steps(self, asked: Any) -> frozenset[int]:
        found = frozenset(chosen(slice(None) if asked is None or asked == "all" else as_index(asked), self.steps))
        if not found:
            raise InterpError(f"steps={asked}: the run has steps 0 to {self.steps - 1}")
        return found

    def prepared(self, latents: Tensor, steps: int | None) -> None:
        """Shapes are known now and no transformer has run: settle the steps, the token mask and the byte budget."""
        self.steps = self.steps if steps is None else steps
        if self.plan is None:
            return
        engine = next(iter(self.model.engines.values()))
        grid = self.model.token_grid(latents)
        mask = token_mask(self.spec["tokens"], grid.shape)
        self.plan = CachePlan(**{**self.plan.__dict__, "tokens": mask, "steps": self._asked_steps(self.spec["steps"])})
        width, heads = engine.adapter.width(engine.module)
        per_token = grid.tokens * engine.module.dtype.itemsize * latents.shape[0]
        joint = any(n.endswith("_text") for n in engine.points)
        row = {"pattern": heads * (grid.tokens + TEXT * joint), "text_pattern": heads * (grid.tokens + TEXT)}
        row["audio_pattern"] = heads * TEXT  # that many audio queries, with a key a video token
        sizes = {
            n: per_token * row.get(self.model._kind(n), 4 * width if "mlp.hook_post" in n else width) for n in self.plan.names
        }
        guided = getattr(self.model.pipe, "do_classifier_free_guidance", True)
        self.plan.check_budget(sizes, len(BRANCHES) if guided else 1, grid.tokens)

    def call(self, calls: tuple[Call, ...], engine: ExpertEngine, kwargs: dict[str, Any]) -> tuple:
        visits = {}
        for name, point in engine.points.items():
            parts = [self._part(name, point, call) for call in calls]
            if any(parts):
                visits[name] = split_visitor(parts, kwargs["hidden_states"].shape[0] // len(calls))
        return engine((), kwargs, visits)

    def _part(self, name: str, point: Point, call: Call) -> Callable[[Tensor], Tensor | None] | None:
        """What to do with the activation of one branch; None for nothing."""
        hooks = self._hooks_at(name, call.step, call.branch, call.expert)
        kept = self.plan is not None and self.plan.wants(name, call.step, call.branch)
        if not hooks and not kept:
            return None
        context = Hook(name, point.layer, call.step, call.sigma, call.timestep, call.branch, call.expert)
        return lambda act: self._visit(act, hooks, context, kept, point.kind)

    def _hooks_at(self, name: str, step: int, branch: str | None, expert: str | None) -> list[tuple[Address, EditFn]]:
        return [
            (address, function)
            for address, function in self.edits
            if address.matches(name) and address.selects(step=step, steps=self.steps, branch=branch, expert=expert)
        ]

    def _visit(self, act: Tensor, hooks: list, context: Hook, kept: bool, kind: str) -> Tensor | None:
        changed = None
        for address, function in hooks:
            current = act if changed is None else changed
            new = apply_edit(current, address, function, context, axes_of(kind, act))
            changed = changed if new is None else new
        if kept:
            value = act if changed is None else changed
            self.cache.keep(context.name, kind, context.step, context.branch, value, self.plan)
        return changed

    def _between(self, name: str, step: int, value: Tensor) -> Tensor | None:
        hooks = self._hooks_at(name, step, None, None)
        kept = self.plan is not None and self.plan.wants(name, step, None)
        if not hooks and not kept:
            return None
        sigma, timestep = self.stage.level(step)
        return self._visit(value, hooks, Hook(name, None, step, sigma, timestep, None, None), kept, TRAJECTORY[name])

    def x_t(self, step: int, value: Tensor) -> Tensor:
        new = self._between("hook_x_t", step, value)
        return value if new is None else new

    def x0hat(self, step: int, value: Tensor) -> Tensor | None:
        return self._between("hook_x0hat", step, value)


def apply_edit(act: Tensor, address: Address, function: EditFn, hook: Hook, axes: tuple[str, ...]) -> Tensor | None:
    """Give the addressed region to the function and write back what it returns."""
    where = region(address, axes, tuple(act.shape))
    given = select(act, where)
    new = function(given, hook)
    if new is None:
        return None
    if not isinstance(new, Tensor) or new.shape != given.shape:
        found = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
        raise InterpError(
            f"the hook at {hook.name}, step {hook.step} returned {found}; it got {tuple(given.shape)} with axes {axes} and "
            "must return the same shape, or None"
        )
    return put(act, where, new)
