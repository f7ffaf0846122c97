"""The way forward of a sweep: a recorded run fed to its pipeline, with the loop on autograd's tape and the transformer off it.

What the transformer returned is a leaf in each forward, and its inputs are the ends of the tape: between them lies all that the
pipeline and its scheduler do, a few latents a step. The transformer's own graph is made when the sweep comes back to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cos_interp.interp.gradient.target import Target
from cos_interp.interp.rows import Fed, returned
from cos_interp.interp.run.clock import Call, Step
from cos_interp.interp.run.engine import ExpertEngine
from cos_interp.interp.trajectory import Run

Wants = Callable[[str, int, str | None], bool]  # (name, step, branch) -> whether its gradient is asked for


@dataclass(frozen=True)
class Forward:
    """One forward of a transformer on the tape. ``kwargs``: its arguments, those of the loop's making as leaves of their own;
    ``ends``: these as they are on the tape, and their leaves; ``leaves``: what it returned, which the loop went on from."""

    calls: tuple[Call, ...]
    engine: ExpertEngine
    kwargs: Mapping[str, Any]
    ends: tuple[tuple[Tensor, Tensor], ...]
    leaves: tuple[Tensor, ...]

    @property
    def step(self) -> int:
        return self.calls[0].step


class Tape(Fed):
    """Feeds the recording, and keeps where the loop and the transformer meet.

    ``zeros``: by name and step a value between the calls, and the zero that was added to it, whose gradient is its. ``seen``:
    the value that the metric is of, where that lies between the calls.
    """

    def __init__(self, run: Run, wants: Wants, target: Target | None):
        super().__init__(run, 1)
        self.wants, self.target = wants, target
        self.forwards: list[Forward] = []
        self.zeros: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
        self.seen: Tensor | None = None

    def call(self, calls: tuple[Call, ...], engine: ExpertEngine, kwargs: dict[str, Any]) -> Any:
        leaves = tuple(part.detach().clone().requires_grad_() for part in self.outputs(calls))
        ends: list[tuple[Tensor, Tensor]] = []

        def leaf(value: Tensor) -> Tensor:
            if not value.requires_grad:
                return value
            own = value.clone()  # some pipelines write the next latents into the tensor that they gave
            ends.append((own, own.detach().requires_grad_()))
            return ends[-1][1]

        self.forwards.append(Forward(calls, engine, _with_tensors(kwargs, leaf), tuple(ends), leaves))
        return returned(engine, tuple(leaf.clone() for leaf in leaves))  # some pipelines write into theirs

    def edit_x_t(self, step: Step, x_t: Tensor) -> Tensor:
        return self._between("hook_x_t", step.index, x_t)

    def edit_x0hat(self, step: Step, x0hat: Tensor) -> Tensor | None:
        new = self._between("hook_x0hat", step.index, x0hat)
        return None if new is x0hat else new

    def _between(self, name: str, step: int, value: Tensor) -> Tensor:
        if self.wants(name, step, None):
            zero = torch.zeros_like(value).requires_grad_()
            self.zeros[name, step] = (value.detach().clone(), zero)
            value = value + zero
        if self.target is not None and self.target.between(name, step):
            self.seen = value
        return value


def _with_tensors(value: Any, made: Callable[[Tensor], Tensor]) -> Any:
    """Arguments, in dictionaries, lists and tuples, with another tensor for each."""
    if isinstance(value, Tensor):
        return made(value)
    if isinstance(value, Mapping):
        return {key: _with_tensors(part, made) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_with_tensors(part, made) for part in value)
    return value
