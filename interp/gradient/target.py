"""What a metric is a function of: the final latents of a run, or its activation at one address."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cos_interp.interp.address import Address
from cos_interp.interp.errors import InterpError
from cos_interp.interp.run.clock import Call
from cos_interp.interp.run.finite import check_finite
from cos_interp.interp.selecting import numbers, region
from cos_interp.interp.trajectory import Run
from cos_interp.interp.views import select

Metric = Callable[[Tensor], Tensor]  # of the final latents, or of an activation with named axes; gives one number
DIFFERENTIABLE = "build it of torch operations on what it is given, without .detach(), .item() and numpy"


@dataclass(frozen=True)
class Target:
    """A place in a run: a hook name at a step and, inside a call, in a branch. ``address`` says which part of the activation."""

    address: Address
    name: str
    step: int
    branch: str | None

    def inside(self, name: str, call: Call) -> bool:
        """Whether the activation of this name in a call is meant."""
        return (name, call.step, call.branch) == (self.name, self.step, self.branch)

    def between(self, name: str, step: int) -> bool:
        """Whether the value of this name between the calls is meant."""
        return self.branch is None and (name, step) == (self.name, self.step)

    def part(self, act: Tensor, axes: tuple[str, ...]) -> Tensor:
        """The addressed region, all axes kept."""
        return select(act, region(self.address, axes, tuple(act.shape)))


def target_of(address: Address, names: Sequence[str], run: Run, between: bool) -> Target:
    """The one place that an address means in a run; ``names`` are those that it matches.

    InterpError where it means several, or what the run does not have.
    """
    if len(names) > 1:
        raise InterpError(f"of={str(address)!r} names {len(names)} hooks, {names[0]} and others: a metric is of one")
    steps = numbers(address.step, run.steps, "step")
    if len(steps) > 1:
        last = f"{names[0]} @ step={run.steps - 1}"
        raise InterpError(f"of={str(address)!r} names {len(steps)} steps: a metric is of one, as in {last!r}")
    if between:
        return Target(address, names[0], steps[0], None)
    if address.branch is None and len(run.branches) > 1:
        raise InterpError(f"of={str(address)!r}: the run has the branches {', '.join(run.branches)}: say branch=cond, or uncond")
    call = run.call(steps[0], address.branch or run.branches[0])
    if address.expert not in (None, call.expert):
        raise InterpError(f"of={str(address)!r}: at step {call.step} {call.expert} runs")
    return Target(address, names[0], call.step, call.branch)


def value_of(metric: Metric, given: Tensor) -> Tensor:
    """What a metric says of a tensor that is on autograd's tape. InterpError where that is not one number, or not on it."""
    with torch.enable_grad():
        value: Any = metric(given)
    if not isinstance(value, Tensor) or value.numel() != 1:
        found = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InterpError(f"the metric gave {found}: it must give one number, as a tensor ({DIFFERENTIABLE})")
    if not value.requires_grad:
        raise InterpError(f"autograd does not see how the metric's value depends on what it was given: {DIFFERENTIABLE}")
    check_finite(value.detach(), "the metric's value")
    return value.reshape(())
