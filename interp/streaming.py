"""Activations by token as they are computed, of a run that keeps none of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cos_interp.interp.address import BRANCHES
from cos_interp.interp.cache import ActivationCache, selected
from cos_interp.interp.cache_plan import CachePlan, CacheRequest, Reduce, Steps, Tokens, as_reduce
from cos_interp.interp.errors import InterpError
from cos_interp.interp.hooking import Hooked, activation_bytes, kind_of
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.planning.first import first_latents
from cos_interp.interp.run.director import Director
from cos_interp.interp.selecting import words
from cos_interp.interp.trajectory import Run
from cos_interp.interp.views import GRID, axes_of

NOWHERE = -1  # frame, row and column of what has no place in the video
UNPLACED = ("text", "audio", "history")  # axes along which other tokens than the video's lie
NO_BOUND = 2**63  # bytes: nothing is kept


@dataclass(frozen=True)
class Rows:
    """One activation of one video: ``values [token, width]`` and ``place [token, 3]``, frame, row and col of each in the token
    grid (-1 where it has none). ``width`` flattens the axes ``axes`` of ``sizes``. The branch of the trajectory's own is None."""

    name: str
    step: int
    branch: str | None
    values: Tensor
    place: Tensor
    axes: tuple[str, ...]
    sizes: tuple[int, ...]


Take = Callable[[Rows], None]


def stream(
    model: HookedVideoPipeline, take: Take, *, names: str | Sequence[str] = "blocks.*.hook_resid_post", steps: Steps = None,
    branches: str | Sequence[str] | None = None, tokens: Tokens = None, reduce: str | Reduce | None = None, **call: Any,
) -> Run:  # fmt: skip
    """Generate one video and hand every selected activation to ``take`` when it is computed; none of them is kept.

    What is selected is said as for :meth:`HookedVideoPipeline.run_with_cache`, and reading changes no bit of the run. Latents
    come by token, with the cells of a token beside each other. Raises InterpError for several videos in one run, and for names
    with other tokens than the video's (text, audio), of which ``reduce="mean"`` makes one row.
    """
    wanted = None if branches is None else words(branches, "branches", BRANCHES)
    request = CacheRequest(tuple(model.matching(names)), steps, wanted, tokens, as_reduce(reduce), NO_BOUND)

    def around(inner: Director) -> Director:
        assert isinstance(inner, Hooked)  # the director of a model's hooks, which keeps what is requested
        inner.request, inner.cache = request, _Heard(take=take, model=model)
        return inner

    return model.run_directed(around, **call)


def bytes_at_most(model: HookedVideoPipeline, names: str | Sequence[str], steps: Steps, branches: Sequence[str], tokens: Tokens,
                  **call: Any) -> int:  # fmt: skip
    """Bytes of the activations that :func:`stream` would hand on, unreduced, at most; no transformer runs."""
    latents = first_latents(model, **call)
    grid, found = model.token_grid(latents), model.matching(names)
    plan = CacheRequest(tuple(found), steps, None, tokens, None, NO_BOUND).plan(len(model.pipe.scheduler.timesteps), grid.shape)
    each = activation_bytes(next(iter(model.engines.values())), {name: kind_of(model.engines, name) for name in found}, grid, 1)
    share = 1.0 if plan.tokens is None else float(plan.tokens.float().mean())
    return round(sum(each.values()) * len(plan.steps) * len(branches) * share)


@dataclass(eq=False)
class _Heard(ActivationCache):
    """A cache that hands on what it should keep; of each it holds that it came."""

    take: Take = field(default=lambda rows: None)
    model: Any = None

    def keep(self, name: str, kind: str, step: int, branch: str | None, act: Tensor, plan: CachePlan, kept: int = 0) -> int:
        if len(act) != 1:
            raise InterpError(f"{len(act)} videos in one run: stream one at a time, with one prompt and one seed")
        self.take(by_token(self.model, name, kind, step, branch, act.detach(), plan))
        self.store[name, step, branch] = torch.empty(0)
        return 0


def by_token(
    model: HookedVideoPipeline, name: str, kind: str, step: int, branch: str | None, act: Tensor, plan: CachePlan
) -> Rows:
    """What a plan keeps of one activation ``[1, ...]``, a row a token. The values may be a view of the activation."""
    axes = axes_of(kind, act)
    if kind == "latent":
        act, axes = patches(act, model.token_grid(act).shape), ("batch", *GRID, "d_model")
    grid = tuple(act.shape[axes.index(axis)] for axis in GRID) if all(axis in axes for axis in GRID) else None
    act, axes = selected(act, axes, plan, name)
    if other := next((axis for axis in axes if axis in UNPLACED), None):
        raise InterpError(f"{name} has tokens of its {other}, which have no place in the video: leave it out, or reduce='mean'")
    act, axes = act.squeeze(0) if axes[:1] == ("batch",) else act, axes[1:] if axes[:1] == ("batch",) else axes
    placed = ("token",) if "token" in axes else GRID if grid is not None and all(axis in axes for axis in GRID) else ()
    within = tuple(axis for axis in axes if axis not in placed)
    act = act.permute([axes.index(axis) for axis in (*placed, *within)])
    sizes = tuple(act.shape[len(placed) :])
    values = act.flatten(0, len(placed) - 1) if len(placed) > 1 else act if placed else act[None]
    place = torch.full((1, 3), NOWHERE) if not placed or grid is None else cells(grid, plan.tokens)
    return Rows(name, step, branch, values.reshape(len(place), -1), place, within, sizes)


def cells(grid: Sequence[int], chosen: Tensor | None) -> Tensor:
    """(frame, row, col) of every token, or of chosen ones, in row-major order: ``[token, 3]``.

    >>> cells((1, 2, 2), torch.tensor([[[True, False], [False, True]]])).tolist()
    [[0, 0, 0], [0, 1, 1]]
    """
    return (torch.ones(tuple(grid), dtype=torch.bool) if chosen is None else chosen.cpu()).nonzero()


def patches(latents: Tensor, grid: Sequence[int]) -> Tensor:
    """Latents ``[1, channel, frame, row, col]`` by token, ``[1, frame, row, col, channel * cells of a token]``."""
    count, channels, *size = latents.shape
    if uneven := [have for have, want in zip(size, grid, strict=True) if have % want]:
        raise InterpError(f"latents of {uneven[0]} cells are not whole tokens, of which there are {list(grid)}: leave them out")
    by = [have // want for have, want in zip(size, grid, strict=True)]
    cut = latents.reshape(count, channels, grid[0], by[0], grid[1], by[1], grid[2], by[2])
    return cut.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
