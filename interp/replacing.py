"""What takes an activation's place must fit it: shape, number format, layout. Nothing is cast or spread without a word."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cos_interp.interp.errors import InterpError
from cos_interp.interp.scalars import lacking


def replacement(new: Any, old: Tensor, who: str, broadcast: bool | None = None) -> Tensor:
    """``new``, on the device of ``old``, whose place it takes. InterpError, which begins with ``who``, where it does not fit.

    ``broadcast``: whether axes of size 1 are meant for all along them; None where that cannot be said.
    """
    if not isinstance(new, Tensor):
        raise InterpError(f"{who} gave {type(new).__name__}, not a tensor: {_wanted(old)}")
    if kind := lacking(new):
        raise InterpError(
            f"{who} gave a {kind} tensor ({new.layout}): give an ordinary one, as .to_dense() makes; {_wanted(old)}"
        )
    if new.dtype != old.dtype:
        raise InterpError(f"{who} gave {new.dtype}: {_wanted(old)}; .to(activation) casts where that is meant")
    fits = new.ndim == old.ndim and all(have in (1, want) for have, want in zip(new.shape, old.shape, strict=True))
    if new.shape != old.shape and not (broadcast and fits):
        how = "; say broadcast=True where axes of size 1 are meant for all along them" if broadcast is False and fits else ""
        raise InterpError(f"{who} gave the shape {tuple(new.shape)}: {_wanted(old)}{how}")
    return new.to(old.device)


def _wanted(old: Tensor) -> str:
    return f"what it replaces is {old.dtype} {tuple(old.shape)}"
