"""The way back: from a metric through each forward in turn, of which one at a time has its graph in memory.

Reverse-mode differentiation of an unrolled loop with its states as the checkpoints (Griewank and Walther 2000; Chen et al.
1604.06174): a forward is run again from the arguments that it had, and its gradient goes on along the tape of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cos_interp.interp.errors import InterpError
from cos_interp.interp.gradient.tape import Forward, Tape
from cos_interp.interp.gradient.target import Metric, Target, value_of
from cos_interp.interp.run.clock import Call
from cos_interp.interp.run.engine import split_visitor, streams
from cos_interp.interp.run.finite import check_finite
from cos_interp.interp.views import axes_of

# (name, kind, step, branch, activation, its gradient) of what was asked for, with named axes
Keep = Callable[[str, str, int, str | None, Tensor, Tensor], None]
Place = tuple[str, str, Call]  # name, kind


def back(tape: Tape, final: Tensor, metric: Metric, first: int, keep: Keep) -> float:
    """Take a metric's gradient back over a tape to its step ``first``, and hand what comes by to ``keep``; returns its value.

    ``final``: the final latents at the end of the tape.
    """
    target, found = tape.target, None
    if target is None or target.branch is None:
        found = value_of(metric, final if target is None else _part_of(tape.seen, target))
        _on_tape(tape, [found], [None])
    last = len(tape.forwards) if target is None else target.step
    for forward in reversed([f for f in tape.forwards if first <= f.step <= last]):
        own = target is not None and any(target.branch == c.branch and target.step == c.step for c in forward.calls)
        again = _Again(tape, forward)
        value = again.through(metric if own else None, keep)
        found = value if own else found
        _on_tape(tape, [end for end, _ in forward.ends], again.passed)
    for (name, step), (value, zero) in tape.zeros.items():
        if target is None or step <= target.step:
            keep(name, "latent", step, None, value, _or_zero(zero.grad, zero))
    assert found is not None
    return float(found)


def _part_of(seen: Tensor | None, target: Target) -> Tensor:
    """What a metric is given of a value between the calls."""
    assert seen is not None  # the step is one of the run's
    with torch.enable_grad():
        return target.part(seen, axes_of("latent", seen))


def _on_tape(tape: Tape, ends: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Take gradients on along the tape, to the outputs of earlier forwards and what was added between the calls."""
    leaves = [*(zero for _, zero in tape.zeros.values()), *(leaf for forward in tape.forwards for leaf in forward.leaves)]
    if ends:
        torch.autograd.backward(ends, gradients, retain_graph=True, inputs=leaves)


def _or_zero(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient


class _Again:
    """One forward run again with its graph, for one way back through it."""

    def __init__(self, tape: Tape, forward: Forward):
        self.tape, self.forward = tape, forward
        self.zeros: list[tuple[Place, Tensor, Tensor]] = []  # activations that are asked for, and what was added to each
        self.seen: Tensor | None = None
        self.passed: Sequence[Tensor] = ()  # gradients with respect to what came from the loop

    def through(self, metric: Metric | None, keep: Keep) -> Tensor | None:
        """Keep what is asked for, and have what is passed on; with a metric of an activation in here, its value."""
        f = self.forward
        visits = {}
        for name, point in f.engine.points.items():
            parts = [self._part(name, point.kind, call) for call in f.calls]
            if any(parts):
                visits[name] = split_visitor(parts, f.kwargs["hidden_states"].shape[0] // len(f.calls))
        with torch.enable_grad():
            made = streams(f.engine((), f.kwargs, visits))
        for new, leaf in zip(made, f.leaves, strict=True):
            check_same(new, leaf, f"{f.engine.name}'s output at step {f.step}")
        value = None if metric is None or self.seen is None else value_of(metric, self.seen)
        from_loop = [(new, leaf.grad) for new, leaf in zip(made, f.leaves, strict=True) if leaf.grad is not None]
        inputs = [*(zero for *_, zero in self.zeros), *(leaf for _, leaf in f.ends)]
        found = _gradients(from_loop if value is None else [(value, None)], inputs)
        for ((name, kind, call), act, _), gradient in zip(self.zeros, found, strict=False):
            check_finite(gradient, f"the gradient at {name}, step {call.step} ({call.branch})")
            keep(name, kind, call.step, call.branch, act, gradient)
        self.passed = found[len(self.zeros) :]
        return value

    def _part(self, name: str, kind: str, call: Call) -> Callable[[Tensor], Tensor | None] | None:
        """What to do with the activation of one branch; None for nothing."""
        wanted = self.tape.wants(name, call.step, call.branch)
        target = self.tape.target
        meant = target is not None and target.inside(name, call)
        if not wanted and not meant:
            return None

        def visit(act: Tensor) -> Tensor | None:
            if wanted:
                zero = torch.zeros_like(act).requires_grad_()
                self.zeros.append(((name, kind, call), act.detach(), zero))
                act = act + zero
            if meant and target is not None:
                self.seen = target.part(act, axes_of(kind, act))
            return act if wanted else None

        return visit


def _gradients(roots: Sequence[tuple[Tensor, Tensor | None]], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of roots, each with the gradient that comes to it, with respect to inputs; 0 for what has no part in them."""
    if not roots or not inputs:
        return [torch.zeros_like(one) for one in inputs]
    outputs, coming = zip(*roots, strict=True)
    found = torch.autograd.grad(outputs, inputs, coming, allow_unused=True)
    return [_or_zero(gradient, like) for gradient, like in zip(found, inputs, strict=True)]


def check_same(new: Tensor, recorded: Tensor, what: str) -> None:
    """InterpError where what is run again does not come to what was recorded, up to half the digits of its type."""
    off = float((new.detach() - recorded.detach()).abs().max() / recorded.detach().abs().max().clamp(min=1e-30))
    if not off <= torch.finfo(recorded.dtype).eps ** 0.5:
        raise InterpError(
            f"{what}, made again from the recorded run, differs from it by {off:.1e} of its largest value: the run is of another "
            "model or other weights, was made inside model.hooks(...), or the model draws noise (call .eval() on its transformer)"
        )
