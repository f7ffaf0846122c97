"""A schedule for other programs: as JSON, and as configurations of diffusers' caches where these can say it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from cos_interp.analyses.acceleration import Call, Method, Spans
from cos_interp.interp.families.sites import EXPERTS
from cos_interp.interp.run.engine import ExpertEngine

# enable_cache takes one configuration, and there may be several
APPLY = (
    "with transformer = getattr(pipe, expert), each by diffusers.hooks.apply_taylorseer_cache(transformer, "
    "TaylorSeerCacheConfig(**config)), then diffusers.hooks.HookRegistry.check_if_exists_or_initialize(transformer)"
    ".invalidate_child_registries_cache(); a pipeline that opens no transformer.cache_context is called inside one"
)
# what a block adds to the stream by, in the families of diffusers: attention, MLP, and of single streams their common projection
HELD = re.compile(r"(\w+_)?(attn\d*|attention|ffn?|mlp|feed_forward)|ff_\w+|proj_out")


def grouped(calls: Sequence[Call]) -> list[dict[str, Any]]:
    """Calls in short: layers of a branch that are saved at the same steps together.

    >>> grouped([(1, 0, "cond"), (3, 0, "cond"), (1, 2, "cond"), (3, 2, "cond")])
    [{'branch': 'cond', 'layers': [0, 2], 'steps': [1, 3]}]
    """
    steps: dict[tuple[str, int], list[int]] = {}
    for step, layer, branch in sorted(calls):
        steps.setdefault((branch, layer), []).append(step)
    layers: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for (branch, layer), some in sorted(steps.items()):
        layers.setdefault((branch, tuple(some)), []).append(layer)
    return [{"branch": branch, "layers": held, "steps": list(some)} for (branch, some), held in layers.items()]


def cached_steps(before: int, interval: int, after: int) -> list[int]:
    """The steps at which TaylorSeer in diffusers takes what it holds: those from ``before`` to ``after`` but every
    ``interval``-th, from the second on. Before -1 comes nothing: step 0 is the first that is computed.

    >>> cached_steps(2, 2, 7), cached_steps(-1, 4, 4)
    ([2, 4, 6], [1, 2, 3])
    """
    return [step for step in range(max(before, 0), after) if (step - before - 1) % interval]


def tells_branches(pipe: Any) -> bool:
    """Whether a pipeline tells diffusers' caches, by ``cache_context``, which branch a call of the transformer is of."""
    try:
        return "cache_context" in inspect.getsource(type(pipe).__call__)
    except (OSError, TypeError):  # no source
        return False


def held_modules(engines: Mapping[str, ExpertEngine]) -> tuple[tuple[tuple[str, ...], ...], str]:
    """By layer, the names of the modules that diffusers' caches hold; or none, and why in words. A layer's number says nothing of
    its name: blocks of several kinds may take turns, or follow one another."""
    found = {tuple(_held(engine, path) for path in engine.blocks) for engine in engines.values()}
    if not all(hasattr(engine.module, "cache_context") for engine in engines.values()):
        return (), "its transformer has no cache_context, in which diffusers' caches work"
    if len(found) > 1:
        return (), "its experts have blocks of different names"
    (modules,) = found
    bare = next((layer for layer, names in enumerate(modules) if not names), None)
    return (modules, "") if bare is None else ((), f"layer {bare} has no attention and no MLP of a name that is known here")


def _held(engine: ExpertEngine, path: str) -> tuple[str, ...]:
    return tuple(f"{path}.{name}" for name, _ in engine.module.get_submodule(path).named_children() if HELD.fullmatch(name))


def taylorseer(modules: Sequence[str], steps: Sequence[int], method: Method) -> dict[str, Any] | None:
    """Keywords of ``TaylorSeerCacheConfig`` by which these modules give at these steps, counted from their expert's first on,
    what they gave last (``cache``) or nothing (``skip``); None where there are none. Order 0 takes what was computed last as it
    is, and a data type of None keeps its bits."""
    names, after = [re.escape(name) for name in modules], steps[-1] + 1
    for before, interval in product((steps[0], -1), range(2, after + 2)):
        if cached_steps(before, interval, after) == list(steps):
            return {
                "cache_interval": interval, "disable_cache_before_step": before, "disable_cache_after_step": after,
                "max_order": 0, "taylor_factors_dtype": None, "cache_identifiers": names,
                "skip_predict_identifiers": names if method == "skip" else None,
            }  # fmt: skip
    return None


def as_json(
    calls: Sequence[Call], method: Method, steps: int, branches: Sequence[str], share: float, modules: Sequence[Sequence[str]],
    unfit: str = "", experts: Spans | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A schedule as data: what is saved, what share of all calls, and the configurations of diffusers by expert, one a group;
    None, with the reason, where it cannot be said. ``modules``, ``unfit``: of the model, see :func:`held_modules`; ``experts``:
    which ran when, one at all steps if None."""
    experts = experts or {EXPERTS[0]: (0, steps)}
    made, why = ({}, unfit) if unfit else _configurations(calls, method, branches, modules, experts)
    return {
        "method": method, "num_inference_steps": steps, "saved": round(share, 4), "groups": grouped(calls),
        "diffusers": {"TaylorSeerCacheConfig": made, "apply": APPLY} if made else None, "not in diffusers because": why or None,
    }  # fmt: skip


def _configurations(
    calls: Sequence[Call], method: Method, branches: Sequence[str], modules: Sequence[Sequence[str]], experts: Spans
) -> tuple[dict[str, list[dict[str, Any]]], str]:
    """Keywords of configurations by expert; or none, and why in words."""
    if method == "round":
        return {}, "diffusers has no hook that rounds by step and layer"
    places = [{(step, layer) for step, layer, of in calls if of == branch} for branch in branches]
    if any(some != places[0] for some in places):
        return {}, "the branches save different calls, which diffusers' caches do not tell apart"
    made: dict[str, list[dict[str, Any] | None]] = {}
    for expert, (first, end) in experts.items():
        own = grouped([(step - first, layer, "") for step, layer in places[0] if first <= step < end])
        names = [[name for layer in group["layers"] for name in modules[layer]] for group in own]
        made[expert] = [taylorseer(some, group["steps"], method) for some, group in zip(names, own, strict=True)]
    if any(config is None for some in made.values() for config in some):
        return {}, "some layers are not saved at regular steps, which diffusers' caches need"
    return {expert: [config for config in some if config] for expert, some in made.items() if some}, ""
