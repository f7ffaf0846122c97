"""How many patched rows share a forward: fixed when a run is planned, from the memory there is, and kept in ``run.json``.

Rows that share a forward differ from single ones by rounding, and take less time. A run that is continued, on this machine or
on another, has the rows that it began with, so that it ends with the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from cos_interp.analyses.driver.outlook import Outlook
from cos_interp.analyses.driver.planning import kind_of_device
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.analyses.driver.workers import default_workers
from cos_interp.interp.limits import host_memory
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.planning.first import first_latents

Rows = Literal["auto"] | Annotated[int, Field(ge=1)]
MOST = 12  # more gain little: of the time of single rows 8 take .62, 16 take .57 (organism, one core)
LIVE = 16  # numbers of a token, in widths of the model, that a block holds at once: streams, queries, keys, values, MLP
SHARE = 0.25  # of the memory; the rest is for weights, recordings and decoding


def settled(
    asked: int | Literal["auto"], held: Mapping[str, Any], model: HookedVideoPipeline, call: Mapping[str, Any],
    memory: float = math.inf,
) -> int:  # fmt: skip
    """The rows of a run: those asked for; else those of the run that is continued; else as many as fit, at most MOST.

    ``held``: the settings of the run that is continued. ``call``: the pipeline's keywords of the largest video. ``memory``: bytes
    that there may be, see :func:`stated`.
    """
    if asked != "auto":
        return asked
    before = held.get("batch")
    return before if isinstance(before, int) else rows_that_fit(model, call, min(_memory(model), memory))


def foreseen(outlook: Outlook) -> int:
    """As :func:`rows_that_fit`, before the model is there, of the largest video of a run."""
    if outlook.model.adapter.one_video(outlook.model.pipe, outlook.call):
        return 1
    memory = stated(outlook.config)
    if kind_of_device(outlook.config) == "cpu":
        memory = min(memory, host_memory() / default_workers())
    return fitting(outlook.model, outlook.shape.grid.tokens, memory)


def rows_that_fit(model: HookedVideoPipeline, call: Mapping[str, Any], memory: float) -> int:
    """Rows of one forward that take at most a share of so many bytes, from 1 to MOST."""
    if model.adapter.one_video(model.pipe, call):
        return 1
    return fitting(model, model.token_grid(first_latents(model, **call)).tokens, memory)


def at_once(model: HookedVideoPipeline, rows: int) -> int:
    """Copies of a call that run in one batch with hooks that tell its rows apart: so many, or 1 where the pipeline makes no batch
    or attends row by row."""
    return 1 if model.one_row or model.adapter.per_sample_attention else rows


def fitting(model: HookedVideoPipeline, tokens: int, memory: float) -> int:
    """As :func:`rows_that_fit`, of so many tokens."""
    engine = next(iter(model.engines.values()))
    width, _ = engine.adapter.width(engine.module)
    both = 2  # branches in one forward
    each = both * tokens * width * LIVE * engine.module.dtype.itemsize
    return int(max(1, min(MOST, SHARE * memory // each)))


def stated(config: AnalysisConfig) -> float:
    """Bytes that a run may have where it computes; infinite where nobody said."""
    said = config.limits()
    on_host = said.get("host_memory", math.inf) / default_workers() if kind_of_device(config) == "cpu" else math.inf
    return min(said.get("memory", math.inf), on_host)


def _memory(model: HookedVideoPipeline) -> float:
    """Bytes for one process: free ones of the GPU, else its part of what the machine has."""
    import torch

    device = getattr(model.pipe, "_execution_device", model.pipe.device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return host_memory() / default_workers()
