"""A schedule for other programs: as JSON, and as configurations of diffusers' caches where these can say it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cos_interp.analyses.acceleration import Call, Method

MOST = 8  # the longest interval that is tried
PATTERN = r"(?:transformer_)?blocks\.(?:{})\.(?:attn\w*|ffn|ff|mlp)"  # names of modules in the families of diffusers


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


def taylorseer(layers: Sequence[int], steps: Sequence[int]) -> dict[str, Any] | None:
    """Keywords of ``TaylorSeerCacheConfig`` by which these layers reuse their outputs at these steps; None where there are none.

    Order 0 reuses what was computed last. It holds the outputs of attention and MLP, whose gates are computed anew, where a
    schedule of this experiment holds the block's whole update.
    """
    for interval in range(2, MOST + 1):
        before, after = steps[0], steps[-1] + 1
        if cached_steps(before, interval, after) == list(steps):
            named = PATTERN.format("|".join(map(str, layers)))
            return {
                "cache_interval": interval, "disable_cache_before_step": before, "disable_cache_after_step": after,
                "max_order": 0, "cache_identifiers": [named],
            }  # fmt: skip
    return None


def as_json(calls: Sequence[Call], method: Method, steps: int, branches: Sequence[str], share: float) -> dict[str, Any]:
    """A schedule as data: what is saved, what share of all calls, and one configuration of diffusers a group, applied by
    ``apply_taylorseer_cache(transformer, TaylorSeerCacheConfig(**config))``; None, with the reason, where it cannot be said."""
    groups = grouped(calls)
    made: list[dict[str, Any]] | None = None
    why = f"diffusers has no hook that does {method!r} by step and layer"
    if method == "cache":
        by_branch = {branch: [g for g in groups if g["branch"] == branch] for branch in branches}
        plain = [[{k: v for k, v in g.items() if k != "branch"} for g in some] for some in by_branch.values()]
        found = [taylorseer(g["layers"], g["steps"]) for g in plain[0]]
        if any(some != plain[0] for some in plain):
            why = "the branches save different calls, which diffusers' caches do not tell apart"
        elif any(config is None for config in found):
            why = "some layers are not saved at regular steps, which diffusers' caches need"
        else:
            made, why = [config for config in found if config is not None], ""
    return {
        "method": method, "num_inference_steps": steps, "saved": round(share, 4), "groups": groups,
        "diffusers": {"TaylorSeerCacheConfig": made} if made else None, "not in diffusers because": why or None,
    }  # fmt: skip
