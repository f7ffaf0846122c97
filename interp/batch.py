"""Single videos and batches of them: joining calls, cutting long lists into parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

BY_ROW = ("prompt", "negative_prompt", "image", "seed")

T = TypeVar("T")


def joined(calls: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Pipeline keywords of single videos as those of one batch; what a batch has once is taken from the first."""
    each = {key: [call[key] for call in calls] for key in BY_ROW if calls[0].get(key) is not None}
    return {**calls[0], **each}


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive parts of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
