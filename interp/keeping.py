"""What a recording is for, and so what it keeps: streams from which patched runs start, sites that it gives, and where."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cos_interp.interp.errors import InterpError
from cos_interp.interp.places import Place
from cos_interp.interp.selecting import numbers

STREAM = "hook_resid_post"  # how the names of what a block hands on begin


@dataclass(frozen=True, eq=False)
class Keeping:
    """What :func:`~cos_interp.interp.patching.record` keeps of a run.

    ``layers``: the blocks in which the run will be patched, which say the residual streams that it needs: None for any block, ()
    for a run that gives alone. ``tokens``: those of the sites that such a run gives, as ``run_with_cache`` takes them.
    ``single``: patches will act in one step each, so that the sites, too, need be there one step at a time. ``place``: a new
    :class:`~cos_interp.interp.places.HostMemory` or :class:`~cos_interp.interp.places.Disk`; None: where they are computed.
    """

    layers: Sequence[int] | None = None
    tokens: Any = None
    single: bool = False
    place: Place | None = None

    def check(self, layers: int) -> None:
        """InterpError for blocks that a model of so many does not have, and for tokens of a run from which others start."""
        if self.layers:
            numbers(self.layers, layers, "layer")
        if self.tokens is not None and (self.layers is None or len(self.layers)):
            raise InterpError(
                "tokens: a run that is patched needs its whole residual streams: say layers=() of one that gives alone"
            )

    def streams(self, names: Collection[str]) -> set[str]:
        """Of a model's hook names the residual streams from which patches in these blocks start."""
        every = {name for name in names if f".{STREAM}" in name}
        if self.layers is None:
            return every
        kinds = {name.split(".", 2)[2] for name in every}
        starts = {after for layer in self.layers for after in (layer - 1, layer)}
        below = ((f"blocks.{n}.{kind}" for n in range(after, -1, -1)) for after in starts for kind in kinds)
        # where nothing reads a stream after the block, it is that of the block before
        return {found for names_down in below if (found := next((name for name in names_down if name in every), None))}


def widened(values: Tensor, axes: tuple[str, ...], mask: Tensor) -> Tensor:
    """An activation of chosen tokens, with an axis ``token``, over the whole grid: 0 outside ``mask`` ``[frame, row, col]``."""
    if "token" not in axes:
        return values
    at = axes.index("token")
    whole = values.new_zeros((*values.shape[:at], mask.numel(), *values.shape[at + 1 :]))
    whole.index_copy_(at, mask.flatten().nonzero()[:, 0].to(values.device), values)
    return whole.unflatten(at, mask.shape)
