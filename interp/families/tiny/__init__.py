"""Tiny random pipelines of every supported family, built offline in milliseconds: for tests, here and of your own.

from cos_interp.interp import tiny
model = HookedVideoPipeline.from_pipeline(tiny.build("cogvideox"))
run = model.run(seed=0, **tiny.call("cogvideox"))

One file a family beside this one, found by itself: its table ``TINY`` names the pipelines.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from cos_interp.interp.errors import InterpError
from cos_interp.interp.families.tiny.record import PROMPT, Tiny, image

__all__ = ["TINY", "build", "call", "image"]

TINY: dict[str, Tiny] = {}
for _file in iter_modules(__path__):
    TINY |= getattr(import_module(f"{__name__}.{_file.name}"), "TINY", {})


def _known(name: str) -> Tiny:
    if name not in TINY:
        raise InterpError(f"no tiny pipeline {name!r}; there are {', '.join(TINY)}")
    return TINY[name]


def build(name: str, scheduler: Any = None) -> Any:
    """A fresh pipeline with random weights (the same ones every time); ``scheduler`` replaces its own."""
    pipe = _known(name).build()
    if scheduler is not None:
        pipe.scheduler = scheduler
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(name: str, guided: bool = True, steps: int = 3, size: int = 32, frames: int = 9) -> dict[str, Any]:
    """Keywords of a small generation: ``frames`` pixel frames of ``size`` x ``size``."""
    entry, (with_guidance, without) = _known(name), _known(name).guidance
    made = {"num_inference_steps": steps} | ({} if entry.frames is None else {entry.frames: frames})
    made |= {"height": size, "width": size} if entry.sized else {}
    made |= entry.keywords | entry.given(size, frames) | (with_guidance if guided else without)
    return made | ({"prompt": PROMPT} if entry.embeddings is None else entry.embeddings(guided))
