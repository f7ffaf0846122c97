"""Guidance of pipelines that have it in a guider, not in their call: ``guidance_scale`` is a keyword of theirs all the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from inspect import signature
from typing import Any

KEY = "guidance_scale"


def by_guider(pipe: Any) -> bool:
    """Whether a pipeline's guidance scale is that of its guider, and no keyword of its call."""
    return KEY not in signature(type(pipe).__call__).parameters and hasattr(getattr(pipe, "guider", None), KEY)


@contextlib.contextmanager
def guided(pipe: Any, call: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The keywords that the pipeline itself takes; for the length of the block its guider has the scale that the call says."""
    if KEY not in call or not by_guider(pipe):
        yield dict(call)
        return
    own = pipe.guider
    pipe.guider = own.new(guidance_scale=call[KEY])
    try:
        yield {key: value for key, value in call.items() if key != KEY}
    finally:
        pipe.guider = own
