"""What a cache is asked to keep, and whether that fits: a request, and the plan that it becomes when a run's sizes are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from torch import Tensor

from cos_interp.interp.address import BRANCHES
from cos_interp.interp.errors import BudgetExceeded, InterpError
from cos_interp.interp.limits import shown_size
from cos_interp.interp.places import Place
from cos_interp.interp.run.finite import check_finite
from cos_interp.interp.scalars import has_numbers
from cos_interp.interp.selecting import numbers, token_mask, words
from cos_interp.interp.views import GRID

DEFAULT_BUDGET = 4 << 30  # bytes

Reduce = Callable[[Tensor], Tensor]
Steps = Any  # what cos_interp.interp.selecting.numbers takes
Tokens = Any  # what cos_interp.interp.selecting.token_mask takes
Reduced = tuple[Tensor, tuple[str, ...]]  # a value and its axes
CHANNELS = ("channel", "d_model", "d_head")
TOKEN_AXES = (*GRID, "token", "text", "audio", "history")  # along which tokens lie


def mean_over_tokens(act: Tensor, axes: tuple[str, ...], name: str) -> Reduced:
    """The mean over all axes along which tokens lie. InterpError for what has none, like a time embedding."""
    along = [place for place, axis in enumerate(axes) if axis in TOKEN_AXES]
    if not along:
        raise InterpError(f"reduce='mean' averages tokens, and {name} has none, only {axes}: leave it out of names")
    return act.mean(along), tuple(axis for axis in axes if axis not in TOKEN_AXES)


def norm_over_channels(act: Tensor, axes: tuple[str, ...], name: str) -> Reduced:
    """The energy map: L2 over channels (CoS section 5.1). InterpError for what has none, like an attention pattern."""
    along = next((place for place, axis in enumerate(axes) if axis in CHANNELS), None)
    if along is None:
        raise InterpError(f"reduce='norm' is over channels, and {name} has none, only {axes}: leave it out of names")
    return act.float().norm(dim=along), tuple(axis for axis in axes if axis not in CHANNELS)


REDUCTIONS: dict[str, Callable[[Tensor, tuple[str, ...], str], Reduced]] = {
    "mean": mean_over_tokens, "norm": norm_over_channels,
}  # fmt: skip


@dataclass(frozen=True)
class CachePlan:
    """What to keep: hook names, steps, branches, tokens (bool mask over the grid), and a reduction."""

    names: tuple[str, ...]
    steps: frozenset[int]
    branches: tuple[str, ...] | None
    tokens: Tensor | None
    reduce: Callable[[Tensor, tuple[str, ...], str], Reduced] | None
    budget: int

    def wants(self, name: str, step: int, branch: str | None) -> bool:
        """Whether an activation is kept; those of the trajectory have no branch."""
        in_branch = self.branches is None or branch is None or branch in self.branches
        return name in self._named and step in self.steps and in_branch

    @cached_property
    def _named(self) -> frozenset[str]:
        return frozenset(self.names)

    def check_budget(self, bytes_each: Mapping[str, int], branches: int, tokens: int) -> None:
        """BudgetExceeded, with a selection that would fit, when the plan is too large. Sizes are upper bounds."""
        if self.reduce is not None:
            return
        share = 1.0 if self.tokens is None else float(self.tokens.sum()) / tokens
        kept = len(self.branches) if self.branches is not None else branches
        total = round(sum(bytes_each[n] for n in self.names) * len(self.steps) * kept * share)
        if total > self.budget:
            fits = max(1, int(len(self.steps) * self.budget / total))
            raise BudgetExceeded(
                f"the cache would hold {shown_size(total)} ({len(self.names)} names x {len(self.steps)} steps x {kept} "
                f"branches), the budget is {shown_size(self.budget)}: ask for {fits} steps, for fewer names, for some "
                f"tokens, for reduce='norm', or pass a larger max_bytes"
            )

    def check_kept(self, kept: int, name: str, step: int) -> None:
        """BudgetExceeded for a run that would keep more than its budget: what a function makes of an activation, or how long a
        text is, was not known before."""
        if kept > self.budget:
            raise BudgetExceeded(
                f"the cache would hold {shown_size(kept)} at {name}, step {step}, the budget is {shown_size(self.budget)}: ask "
                "for fewer steps, names or tokens, reduce to less, or pass a larger max_bytes"
            )


@dataclass(frozen=True)
class CacheRequest:
    """What the user asked to keep, before the run has said how many steps and tokens it has."""

    names: tuple[str, ...]
    steps: Steps
    branches: tuple[str, ...] | None
    tokens: Tokens
    reduce: Callable[[Tensor, tuple[str, ...], str], Reduced] | None
    budget: int
    place: Place | None = None

    def known_steps(self, steps: int) -> frozenset[int]:
        """The steps asked for, in a run of so many. InterpError where it lacks one of them."""
        return frozenset(numbers(self.steps, steps, "step"))

    def plan(self, steps: int, grid: tuple[int, int, int]) -> CachePlan:
        """The plan for a run of so many steps over a token grid. InterpError for steps or tokens that it does not have."""
        mask = token_mask(self.tokens, grid)
        return CachePlan(self.names, self.known_steps(steps), self.branches, mask, self.reduce, self.budget)


def requested(
    names: Sequence[str], steps: Steps, branches: Any, tokens: Tokens, reduce: str | Reduce | None, max_bytes: int,
    place: Place | None = None,
) -> CacheRequest:  # fmt: skip
    """A request in the words of ``run_with_cache``. InterpError for a branch, reduction or budget that is none."""
    in_branches = None if branches is None else words(branches, "branches", BRANCHES)
    return CacheRequest(tuple(names), steps, in_branches, tokens, as_reduce(reduce), checked_budget(max_bytes), place)


def as_reduce(reduce: str | Reduce | None) -> Callable[[Tensor, tuple[str, ...], str], Reduced] | None:
    """A reduction by its name, or a function of an activation, as a function of activation, axes and name."""
    if isinstance(reduce, str):
        if reduce not in REDUCTIONS:
            raise InterpError(f"unknown reduction {reduce!r}; there are {', '.join(REDUCTIONS)}, or pass a function")
        return REDUCTIONS[reduce]
    if reduce is not None and not callable(reduce):
        raise InterpError(f"reduce={reduce!r}: give {', '.join(map(repr, REDUCTIONS))}, or a function of an activation")
    return None if reduce is None else partial(_by_function, reduce)


def _by_function(reduce: Reduce, act: Tensor, axes: tuple[str, ...], name: str) -> Reduced:
    """What a function makes of an activation; its axes are the activation's where the shape is, else they have numbers."""
    finite = bool(act.isfinite().all())
    before, value = act.shape, reduce(act)
    if not has_numbers(value) or not value.numel():
        found = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InterpError(f"reduce gave {found} for {name}: its function must return an ordinary tensor with values")
    if finite:
        check_finite(value, f"what reduce made of {name}")
    return value, axes if value.shape == before else tuple(f"reduced {place}" for place in range(value.ndim))


def checked_budget(asked: Any) -> int:
    """A number of bytes. InterpError for what is none."""
    if isinstance(asked, bool) or not isinstance(asked, int | float | np.number) or not 0 <= asked < math.inf:
        raise InterpError(f"max_bytes={asked!r}: give a number of bytes, like 4e9")
    return int(asked)
