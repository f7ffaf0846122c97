"""A schedule for other programs: as JSON, and as configurations of diffusers' caches where these can say it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cos_interp.analyses.acceleration import Call, Method
from cos_interp.interp.run.engine import ExpertEngine

# enable_cache takes one configuration, and there may be several
APPLY = (
    "each by diffusers.hooks.apply_taylorseer_cache(transformer, TaylorSeerCacheConfig(**config)), for every expert; a pipeline "
    "that opens no transformer.cache_context is called inside one"
)
MOST = 8  # the longest interval that is tried
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
    ``interval``-th, from the second on.

    >>> cached_steps(2, 2, 7)
    [2, 4, 6]
    """
    return [step for step in range(before, after) if (step - before - 1) % interval]


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


def taylorseer(modules: Sequence[str], steps: Sequence[int]) -> dict[str, Any] | None:
    """Keywords of ``TaylorSeerCacheConfig`` by which these modules reuse their outputs at these steps; None where there are none.

    Order 0 reuses what was computed last. It holds the outputs of attention and MLP, whose gates are computed anew, where a
    schedule of this experiment holds the block's whole update.
    """
    for interval in range(2, MOST + 1):
        before, after = steps[0], steps[-1] + 1
        if cached_steps(before, interval, after) == list(steps):
            return {
                "cache_interval": interval, "disable_cache_before_step": before, "disable_cache_after_step": after,
                "max_order": 0, "cache_identifiers": [re.escape(name) for name in modules],
            }  # fmt: skip
    return None


def as_json(
    calls: Sequence[Call], method: Method, steps: int, branches: Sequence[str], share: float, modules: Sequence[Sequence[str]],
    unfit: str = "",
) -> dict[str, Any]:  # fmt: skip
    """A schedule as data: what is saved, what share of all calls, and one configuration of diffusers a group; None, with the
    reason, where it cannot be said. ``modules``, ``unfit``: of the model, see :func:`held_modules`."""
    groups = grouped(calls)
    made: list[dict[str, Any]] | None = None
    why = f"diffusers has no hook that does {method!r} by step and layer"
    if method == "cache":
        by_branch = {branch: [g for g in groups if g["branch"] == branch] for branch in branches}
        plain = [[{k: v for k, v in g.items() if k != "branch"} for g in some] for some in by_branch.values()]
        names = [[name for layer in g["layers"] for name in modules[layer]] if not unfit else [] for g in plain[0]]
        found = [taylorseer(some, g["steps"]) for some, g in zip(names, plain[0], strict=True)]
        if unfit:
            why = unfit
        elif any(some != plain[0] for some in plain):
            why = "the branches save different calls, which diffusers' caches do not tell apart"
        elif any(config is None for config in found):
            why = "some layers are not saved at regular steps, which diffusers' caches need"
        else:
            made, why = [config for config in found if config is not None], ""
    return {
        "method": method, "num_inference_steps": steps, "saved": round(share, 4), "groups": groups,
        "diffusers": {"TaylorSeerCacheConfig": made, "apply": APPLY} if made else None, "not in diffusers because": why or None,
    }  # fmt: skip
