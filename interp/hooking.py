"""Hooks and a cache at work in one run: which activations are visited, edited and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from cos_interp.interp.address import BRANCHES, Address
from cos_interp.interp.cache import ActivationCache
from cos_interp.interp.cache_plan import CachePlan, CacheRequest
from cos_interp.interp.errors import InterpError
from cos_interp.interp.families.adapter import Point
from cos_interp.interp.run.clock import Call, Hook, Step
from cos_interp.interp.run.director import Director
from cos_interp.interp.run.engine import ExpertEngine, split_visitor
from cos_interp.interp.views import TokenGrid, axes_of, put, region, select

EditFn = Callable[[Tensor, Hook], Tensor | None]
FwdHook = tuple[str, EditFn]
Edits = Sequence[tuple[Address, EditFn]]
TRAJECTORY = {"hook_x_t": "latent", "hook_x0hat": "latent"}  # between calls: no transformer computes them
TEXT = 512  # keys that a joint attention has for its text, at most in the released models' defaults


class Hooked(Director):
    """Runs the hooks of a model and fills a cache with what was requested.

    ``steps``: of the run, as far as they are known before the pipeline says so.
    """

    def __init__(
        self, pipe: Any, engines: Mapping[str, ExpertEngine], edits: Edits, steps: int, request: CacheRequest | None = None
    ):
        self.pipe, self.engines, self.edits, self.steps = pipe, engines, tuple(edits), steps
        self.request, self.cache = request, ActivationCache()
        self.plan: CachePlan | None = None  # where something was requested, from the prepared latents on
        if request is not None:
            request.known_steps(steps)  # refused before anything runs

    def prepared(self, latents: Tensor, steps: int | None) -> None:
        """Shapes are known now and no transformer has run: settle the steps, the token mask and the byte budget."""
        self.steps = self.steps if steps is None else steps
        if self.request is None:
            return
        engine = next(iter(self.engines.values()))
        frames, rows, cols = latents.shape[2:]
        grid = engine.adapter.grid(engine.module, (frames, rows, cols))
        self.plan = self.request.plan(self.steps, grid.shape)
        kinds = {name: kind_of(self.engines, name) for name in self.plan.names}
        sizes = {name: activation_bytes(engine, name, kind, grid, latents.shape[0]) for name, kind in kinds.items()}
        guided = getattr(self.pipe, "do_classifier_free_guidance", True)
        self.plan.check_budget(sizes, len(BRANCHES) if guided else 1, grid.tokens)

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
        edits = [
            (address, function)
            for address, function in self.edits
            if address.matches(name) and address.selects(step=step, steps=self.steps, branch=branch, expert=expert)
        ]
        return edits, self.plan if self.plan is not None and self.plan.wants(name, step, branch) else None

    def _visit(self, act: Tensor, edits: Edits, hook: Hook, plan: CachePlan | None, kind: str) -> Tensor | None:
        changed = None
        for address, function in edits:
            current = act if changed is None else changed
            new = apply_edit(current, address, function, hook, axes_of(kind, act))
            changed = changed if new is None else new
        if plan is not None:
            self.cache.keep(hook.name, kind, hook.step, hook.branch, act if changed is None else changed, plan)
        return changed


def kind_of(engines: Mapping[str, ExpertEngine], name: str) -> str:
    """The kind of a hook name that some expert has, see :data:`cos_interp.interp.views.AXES`."""
    if name in TRAJECTORY:
        return TRAJECTORY[name]
    return next(engine.points[name].kind for engine in engines.values() if name in engine.points)


def activation_bytes(engine: ExpertEngine, name: str, kind: str, grid: TokenGrid, rows: int) -> int:
    """Bytes of one activation of so many rows, at most."""
    width, heads = engine.adapter.width(engine.module)
    joint = any(point.endswith("_text") for point in engine.points)
    per_token = {
        "pattern": heads * (grid.tokens + TEXT * joint),
        "text_pattern": heads * (grid.tokens + TEXT),
        "audio_pattern": heads * TEXT,  # that many audio queries, with a key a video token
    }.get(kind, 4 * width if "mlp.hook_post" in name else width)
    return per_token * grid.tokens * engine.module.dtype.itemsize * rows


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
