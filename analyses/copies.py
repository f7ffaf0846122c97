"""Several runs of one problem in one batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from interp.model import HookedVideoPipeline

T = TypeVar("T")


def copies(model: HookedVideoPipeline, call: dict[str, Any], rows: int) -> dict[str, Any]:
    """The pipeline's keywords for a batch of ``rows`` equal runs of a call, all from the same noise."""
    call = {**{k: model.default(k) for k in ("height", "width", "num_frames")}, **call}
    return {**call, **{k: [call[k]] * rows for k in ("prompt", "image", "seed") if k in call}}


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive parts of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
