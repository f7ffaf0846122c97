"""What a cache is asked to keep, and whether that fits: a request, and the plan that it becomes when a run's sizes are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cos_interp.interp.address import chosen
from cos_interp.interp.errors import BudgetExceeded, InterpError
from cos_interp.interp.views import GRID

DEFAULT_BUDGET = 4 << 30  # bytes

Reduce = Callable[[Tensor], Tensor]
Steps = int | range | slice | Sequence[int] | Literal["all"] | None
Tokens = Tensor | Mapping[str, Iterable[int]] | None
REDUCTIONS: dict[str, Reduce] = {
    "mean": lambda act: act.mean(dim=(1, 2, 3)),  # over tokens
    "norm": lambda act: act.float().norm(dim=-1),  # energy map: L2 over channels (CoS section 5.1)
}


@dataclass(frozen=True)
class CachePlan:
    """What to keep: hook names, steps, branches, tokens (bool mask over the grid), and a reduction."""

    names: tuple[str, ...]
    steps: frozenset[int]
    branches: tuple[str, ...] | None
    tokens: Tensor | None
    reduce: Reduce | None
    budget: int

    def wants(self, name: str, step: int, branch: str | None) -> bool:
        """Whether an activation is kept; those of the trajectory have no branch."""
        in_branch = self.branches is None or branch is None or branch in self.branches
        return name in self.names and step in self.steps and in_branch

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
                f"the cache would hold {total / 1e9:.2f} GB ({len(self.names)} names x {len(self.steps)} steps x {kept} "
                f"branches), the budget is {self.budget / 1e9:.2f} GB: ask for {fits} steps, for fewer names, for some "
                f"tokens, for reduce='norm', or pass a larger max_bytes"
            )


@dataclass(frozen=True)
class CacheRequest:
    """What the user asked to keep, before the run has said how many steps and tokens it has."""

    names: tuple[str, ...]
    steps: Steps
    branches: tuple[str, ...] | None
    tokens: Tokens
    reduce: Reduce | None
    budget: int

    def known_steps(self, steps: int) -> frozenset[int]:
        """The steps asked for, in a run of so many. InterpError where it has none of them."""
        asked = "all" if self.steps is None else self.steps
        if isinstance(asked, str) and asked != "all":
            raise InterpError(f"steps={asked!r}: give a number, a range, a list of numbers, or 'all'")
        found = frozenset(range(steps) if isinstance(asked, str) else chosen(asked, steps))
        if not found:
            raise InterpError(f"steps={self.steps}: the run has steps 0 to {steps - 1}")
        return found

    def plan(self, steps: int, grid: tuple[int, int, int]) -> CachePlan:
        """The plan for a run of so many steps over a token grid. InterpError for steps or tokens that it does not have."""
        mask = token_mask(self.tokens, grid)
        return CachePlan(self.names, self.known_steps(steps), self.branches, mask, self.reduce, self.budget)


def as_reduce(reduce: str | Reduce | None) -> Reduce | None:
    """A reduction by its name, or as it is given."""
    if isinstance(reduce, str):
        if reduce not in REDUCTIONS:
            raise InterpError(f"unknown reduction {reduce!r}; there are {', '.join(REDUCTIONS)}, or pass a function")
        return REDUCTIONS[reduce]
    return reduce


def grid_mask(tokens: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """``tokens`` when it is a boolean mask over (frame, row, col); else InterpError."""
    if tokens.shape != shape or tokens.dtype != torch.bool:
        raise InterpError(f"tokens: a bool mask of shape {shape} is needed, got {tokens.dtype} {tuple(tokens.shape)}")
    return tokens


def token_mask(tokens: Tokens, shape: tuple[int, int, int]) -> Tensor | None:
    """A boolean mask over (frame, row, col), from a mask or from ``{"frame": [0, 1], "row": [2]}``."""
    if tokens is None:
        return None
    if isinstance(tokens, Tensor):
        return grid_mask(tokens, shape)
    mask = torch.ones(shape, dtype=torch.bool)
    for axis, name in enumerate(GRID):
        if name in tokens:
            along = torch.zeros(shape[axis], dtype=torch.bool)
            along[list(tokens[name])] = True
            mask &= along.view([-1 if a == axis else 1 for a in range(3)])
    return mask
