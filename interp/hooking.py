"""Hooks and a cache at work in one run: which activations are visited, edited and kept."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from cos_interp.interp.address import BRANCHES, Address
from cos_interp.interp.cache import ActivationCache
from cos_interp.interp.cache_plan import CachePlan, CacheRequest
from cos_interp.interp.errors import InterpError
from cos_interp.interp.families.adapter import Point
from cos_interp.interp.places import Place
from cos_interp.interp.replacing import replacement
from cos_interp.interp.run.clock import Call, Hook, Step
from cos_interp.interp.run.director import Director
from cos_interp.interp.run.engine import ExpertEngine, split_visitor
from cos_interp.interp.run.finite import check_finite
from cos_interp.interp.selecting import numbers, region
from cos_interp.interp.trajectory import Run
from cos_interp.interp.views import AXES, GRID, TokenGrid, axes_of, put, select

EditFn = Callable[[Tensor, Hook], Tensor | None]
FwdHook = tuple[str, EditFn]
Edits = Sequence[tuple[Address, EditFn]]
TRAJECTORY = {"hook_x_t": "latent", "hook_x0hat": "latent"}  # between calls: no transformer computes them
UNGUIDED = "the run has no uncond branch: its guidance scale is 1 or less, or the model needs none"
TEXT = 512  # keys that a joint attention has for its text, at most in the released models' defaults


class Hooked(Director):
    """Runs the hooks of a model and fills a cache with what was requested.

    ``steps``: of the run, as far as they are known before the pipeline says so.
    """

    def __init__(
        self, pipe: Any, engines: Mapping[str, ExpertEngine], edits: Edits, steps: int, request: CacheRequest | None = None
    ):
        self.pipe, self.engines, self.edits, self.steps = pipe, engines, tuple(edits), steps
        self.request, self.kept = request, 0  # bytes
        self.cache = ActivationCache() if request is None else in_place(request.place)
        self.acted: list[set[int]] = [set() for _ in self.edits]  # the steps at which each did
        self.plan: CachePlan | None = None  # where something was requested, from the prepared latents on
        if request is not None:
            request.known_steps(steps)  # refused before anything runs

    def prepared(self, latents: Tensor, steps: int | None) -> None:
        """Shapes are known now and no transformer has run: settle the steps, the token mask and the byte budget."""
        self.steps = self.steps if steps is None else steps
        engine = next(iter(self.engines.values()))
        frames, rows, cols = latents.shape[2:]
        grid = engine.adapter.grid(engine.module, (frames, rows, cols))
        guided = is_guided(self.pipe)
        for address, _ in self.edits:
            self._check(address, {"token": grid.shape, "latent": (frames, rows, cols)}, guided)
        if self.request is not None:
            self.plan = planned(self.request, self.engines, latents, self.steps, guided)

    def _check(self, address: Address, grids: Mapping[str, tuple[int, int, int]], guided: bool) -> None:
        """InterpError for an address of something that this run does not have, wholly or in part."""
        try:
            numbers(address.step, self.steps, "step")
            if address.branch == "uncond" and not guided:
                raise InterpError(UNGUIDED)
            for name in (name for name in self._names() if address.matches(name)):
                kind = kind_of(self.engines, name)
                for axis, size in zip(GRID, grids["latent" if kind == "latent" else "token"], strict=True):
                    if axis in AXES[kind]:
                        numbers(getattr(address, axis), size, axis)
        except InterpError as error:
            raise InterpError(f"{address}: {error}") from error

    def _names(self) -> Iterator[str]:
        yield from TRAJECTORY
        for engine in self.engines.values():
            yield from engine.points

    def check_done(self, run: Run) -> None:
        """InterpError when a run was not what was planned, an edit never acted, or something asked for was never kept."""
        if run.steps != self.steps and (self.edits or self.request):
            raise InterpError(
                f"the pipeline ran {run.steps} steps, {self.steps} were planned: steps may have been addressed wrongly"
            )
        for (address, _), acted in zip(self.edits, self.acted, strict=True):
            if not acted:
                raise InterpError(f"the hook at {address} never acted: nothing of that address came in this run ({run})")
            asked = set(numbers(address.step, self.steps, "step")) if address.step is not None else acted
            if asked - acted:
                at = ", ".join(map(str, sorted(acted)))
                raise InterpError(
                    f"the hook at {address} acted at step {at} only: at step {min(asked - acted)} nothing of it came"
                )
        if self.plan is None:
            return
        kept = {(name, step) for name, step, _ in self.cache}
        missing = [(name, step) for name in self.plan.names for step in sorted(self.plan.steps) if (name, step) not in kept]
        branches = {branch for _, _, branch in self.cache} - {None}
        if missing or (branches and set(self.plan.branches or ()) - branches):
            what = f"{missing[0][0]} at step {missing[0][1]}" if missing else f"branches {self.plan.branches}"
            raise InterpError(f"{what} was to be kept and never came in this run ({run})")

    def call(self, calls: tuple[Call, ...], engine: ExpertEngine, kwargs: dict[str, Any]) -> Any:
        visits = {}
        for name, point in engine.points.items():
            parts = [self._part(name, point, call) for call in calls]
            if any(parts):
                visits[name] = split_visitor(parts, kwargs["hidden_states"].shape[0] // len(calls))
        return engine((), kwargs, visits)

    def edit_x_t(self, step: Step, x_t: Tensor) -> Tensor:
        new = self._between("hook_x_t", step, x_t)
        return x_t if new is None else new

    def edit_x0hat(self, step: Step, x0hat: Tensor) -> Tensor | None:
        return self._between("hook_x0hat", step, x0hat)

    def _part(self, name: str, point: Point, call: Call) -> Callable[[Tensor], Tensor | None] | None:
        """What to do with the activation of one branch; None for nothing."""
        edits, plan = self._at(name, call.step, call.branch, call.expert)
        if not edits and plan is None:
            return None
        hook = Hook(name, point.layer, call.step, call.sigma, call.timestep, call.branch, call.expert)
        return lambda act: self._visit(act, edits, hook, plan, point.kind)

    def _between(self, name: str, step: Step, value: Tensor) -> Tensor | None:
        edits, plan = self._at(name, step.index, None, None)
        if not edits and plan is None:
            return None
        hook = Hook(name, None, step.index, step.sigma, step.timestep, None, None)
        return self._visit(value, edits, hook, plan, TRAJECTORY[name])

    def _at(self, name: str, step: int, branch: str | None, expert: str | None) -> tuple[Edits, CachePlan | None]:
        """The edits of an activation, and the plan where it is kept."""
        edits = []
        for place, (address, function) in enumerate(self.edits):
            if address.matches(name) and address.selects(step=step, steps=self.steps, branch=branch, expert=expert):
                edits.append((address, function))
                self.acted[place].add(step)
        return edits, self.plan if self.plan is not None and self.plan.wants(name, step, branch) else None

    def _visit(self, act: Tensor, edits: Edits, hook: Hook, plan: CachePlan | None, kind: str) -> Tensor | None:
        changed = None
        for address, function in edits:
            current = act if changed is None else changed
            new = apply_edit(current, address, function, hook, axes_of(kind, act))
            changed = changed if new is None else new
        if plan is not None:
            at, left = (hook.name, kind, hook.step, hook.branch), act if changed is None else changed
            self.kept += self.cache.keep(*at, left, plan, self.kept)
        return changed


def in_place(place: Place | None) -> ActivationCache:
    """An empty cache that keeps in a place; None: where activations are computed. InterpError for a place that is in use."""
    if place is None:
        return ActivationCache()
    if not isinstance(place, Place) or len(place):
        given = "holds another cache's activations" if isinstance(place, Place) else f"is {type(place).__name__}"
        raise InterpError(f"place {given}: give a new HostMemory() or Disk() of cos_interp.interp.places to each run")
    return ActivationCache(place)


def checked_hooks(fwd_hooks: Any) -> list[FwdHook]:
    """The pairs (address, function); InterpError, which says what is wrong with which, where they are none."""
    how = "give a list of pairs like [('blocks.3.hook_resid_post @ step=4', lambda activation, hook: activation * 0)]"
    if isinstance(fwd_hooks, str) or (isinstance(fwd_hooks, tuple) and len(fwd_hooks) == 2 and isinstance(fwd_hooks[0], str)):
        raise InterpError(f"fwd_hooks is one pair or a name: {how}")
    if not isinstance(fwd_hooks, Iterable):
        raise InterpError(f"fwd_hooks={fwd_hooks!r}: {how}")
    made: list[FwdHook] = []
    for pair in fwd_hooks:
        if isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], Address):
            pair = (str(pair[0]), pair[1])
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[0], str):
            raise InterpError(f"fwd_hooks holds {pair!r}, which is no pair: {how}")
        if not callable(pair[1]):
            raise InterpError(f"the hook at {pair[0]} is {pair[1]!r}, not a function: {how}")
        if misfit := unfit(pair[1], 2):
            raise InterpError(f"the function of the hook at {pair[0]} must take (activation, hook): {misfit}")
        made.append((pair[0], pair[1]))
    return made


def unfit(function: Callable[..., Any], count: int) -> str | None:
    """Why a function does not take so many arguments, in Python's words; None where it does, or does not say."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError as error:
        return str(error)
    except ValueError:  # a built-in function
        return None
    return None


def is_guided(pipe: Any) -> bool:
    """Whether a run that is prepared has an unconditional branch; True where the pipeline does not say."""
    return bool(getattr(pipe, "do_classifier_free_guidance", True))


def kind_of(engines: Mapping[str, ExpertEngine], name: str) -> str:
    """The kind of a hook name that some expert has, see :data:`cos_interp.interp.views.AXES`."""
    if name in TRAJECTORY:
        return TRAJECTORY[name]
    return next(engine.points[name].kind for engine in engines.values() if name in engine.points)


def planned(request: CacheRequest, engines: Mapping[str, ExpertEngine], latents: Tensor, steps: int, guided: bool) -> CachePlan:
    """The plan of what was requested, for a run of so many steps with these latents ``[batch, channel, frame, row, col]``.

    InterpError for what the run does not have, BudgetExceeded for more than fits.
    """
    engine = next(iter(engines.values()))
    frames, rows, cols = latents.shape[2:]
    grid = engine.adapter.grid(engine.module, (frames, rows, cols))
    plan = request.plan(steps, grid.shape)
    if plan.branches is not None and "uncond" in plan.branches and not guided:
        raise InterpError(f"branches={plan.branches}: {UNGUIDED}")
    kinds = {name: kind_of(engines, name) for name in plan.names}
    if plan.tokens is not None and not any("frame" in AXES[kind] for kind in kinds.values()):
        name, kind = next(iter(kinds.items()))
        raise InterpError(f"tokens: {name} has the axes {', '.join(AXES[kind])}, no tokens of the video: leave tokens out")
    plan.check_budget(activation_bytes(engine, kinds, grid, latents.shape[0]), len(BRANCHES) if guided else 1, grid.tokens)
    return plan


def activation_bytes(engine: ExpertEngine, kinds: Mapping[str, str], grid: TokenGrid, rows: int) -> dict[str, int]:
    """Bytes of one activation of so many rows, at most, for each name; ``kinds`` says of which kind each is."""
    width, heads = engine.adapter.width(engine.module)
    joint = any(point.endswith("_text") for point in engine.points)
    per_token = {
        "pattern": heads * (grid.tokens + TEXT * joint),
        "text_pattern": heads * (grid.tokens + TEXT),
        "audio_pattern": heads * TEXT,  # that many audio queries, with a key a video token
    }
    each = grid.tokens * engine.module.dtype.itemsize * rows
    widest = lambda name: 4 * width if "mlp.hook_post" in name else width
    return {name: per_token.get(kind, widest(name)) * each for name, kind in kinds.items()}


def apply_edit(act: Tensor, address: Address, function: EditFn, hook: Hook, axes: tuple[str, ...]) -> Tensor | None:
    """Give the addressed region to the function and write back what it returns."""
    where = region(address, axes, tuple(act.shape))
    given = select(act, where)
    before = 0 if given.is_inference() else given._version
    new = function(given, hook)
    if new is None:
        if not given.is_inference() and given._version != before:
            raise InterpError(
                f"the hook at {hook.name}, step {hook.step} changed its copy in place and returned None, which changes nothing: "
                "return the changed tensor, or work on a clone"
            )
        return None
    new = replacement(new, given, f"the hook at {hook.name} (axes {', '.join(axes)}), step {hook.step},")
    if bool(given.isfinite().all()):
        check_finite(new, f"what the hook at {hook.name}, step {hook.step} returned")
    return put(act, where, new)
