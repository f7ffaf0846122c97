"""Whether the tape of a loop says how the loop moves: measured, by moving it.

A scheduler or a pipeline that detaches something, keeps a copy as numbers, or runs a part without gradients gives a gradient that
is wrong without a word. Feeding a run costs no forward of the transformer, so it is done twice more, with the outputs a little
to either side, and what becomes of the final latents is held against the tape.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cos_interp.interp.errors import InterpError
from cos_interp.interp.gradient.tape import Tape
from cos_interp.interp.rows import Fed
from cos_interp.interp.run.clock import Call
from cos_interp.interp.trajectory import Run

# of the movement of the latents: rounding (central differences of width eps^(1/3) are off by eps^(2/3)), and what is not linear
TOLERANCE = {torch.float64: 0.01, torch.float32: 0.01, torch.bfloat16: 0.4, torch.float16: 0.1}


class Moved(Fed):
    """Feeds a recording whose outputs are moved a little."""

    def __init__(self, run: Run, by: list[tuple[Tensor, ...]], scale: float):
        super().__init__(run, 1)
        self.by, self.scale, self.count = by, scale, 0

    def outputs(self, calls: tuple[Call, ...]) -> tuple[Tensor, ...]:
        by, self.count = self.by[self.count], self.count + 1
        return tuple(part + self.scale * step for part, step in zip(super().outputs(calls), by, strict=True))


def check_loop(play: Callable[[Fed], Tensor], tape: Tape, final: Tensor, what: str) -> None:
    """InterpError where the loop moves the final latents otherwise than its tape says. ``play``: final latents of a fed run."""
    leaves = [leaf for forward in tape.forwards for leaf in forward.leaves]
    draw = torch.Generator().manual_seed(0)
    noise = lambda like: torch.randn(like.shape, generator=draw).to(like) * like.detach().float().std().to(like)
    by = [tuple(noise(leaf) for leaf in forward.leaves) for forward in tape.forwards]
    scale = torch.finfo(final.dtype).eps ** (1 / 3)
    there, back = (play(Moved(tape.run, by, sign * scale)).double() for sign in (1, -1))
    moved = (there - back) / (2 * scale)
    told = (
        torch.autograd.grad(final, leaves, moved.to(final), retain_graph=True, allow_unused=True) if final.requires_grad else ()
    )
    pairs = zip(told, (step for steps in by for step in steps), strict=False)
    said = sum(float((gradient.double() * step.double()).sum()) for gradient, step in pairs if gradient is not None)
    found = float(moved.square().sum())
    if not abs(said - found) <= TOLERANCE[final.dtype] * found:
        raise InterpError(
            f"{what} cannot be differentiated: moved outputs move the final latents by {found:.4g}, and autograd says "
            f"{said:.4g} (the product of either with the movement): something in the loop is cut off from its inputs, as by "
            "detach() or torch.no_grad(); load another scheduler"
        )
