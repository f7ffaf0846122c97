"""What a run will be, known before its transformer runs."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.director import Around


class _Known(Exception):
    """The latents that a run starts from."""


class _Stop(Around):
    """Ends a run when its sizes are known."""

    def prepared(self, latents: Tensor, steps: int | None) -> None:
        raise _Known(latents)


def first_latents(model: HookedVideoPipeline, **call: Any) -> Tensor:
    """The latents ``[batch, channel, frame, row, col]`` that a run with these keywords starts from; no transformer runs."""
    try:
        model.run_directed(_Stop, **call)
    except _Known as known:
        return known.args[0]
    raise AssertionError("a run prepares its latents")
