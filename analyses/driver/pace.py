"""How fast a model computes here, from one timed call; where it is not here or too large, from one product of its width."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any

import torch

from cos_interp.analyses.driver.experiment import load_model, told
from cos_interp.analyses.driver.outlook import Outlook
from cos_interp.interp import variants
from cos_interp.interp.families import tiny
from cos_interp.interp.loading import files_of, folder_of
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.clock import Call
from cos_interp.interp.run.director import Around
from cos_interp.interp.run.engine import ExpertEngine

LARGEST = 2e12  # operations of a call that is timed on a CPU
ROWS = 512  # of the product


@dataclass(frozen=True)
class Pace:
    """``how``: what was timed, in words."""

    flops_a_second: float
    how: str


def can_time(device: str) -> bool:
    """Whether this machine has a kind of device on which a call can be timed."""
    return device == "cpu" or (device == "cuda" and torch.cuda.is_available())


def pace(outlook: Outlook, device: str, model: HookedVideoPipeline | None = None) -> Pace | None:
    """The pace of a model's blocks on a kind of device; None where this machine has none. ``model``: the loaded one."""
    if not can_time(device):
        return None
    call = outlook.shape.block_flops * outlook.model.layers
    if (model is not None or _is_here(outlook)) and (call < LARGEST or device != "cpu"):
        return _of_a_call(outlook, model)
    return _of_a_product(outlook, device)


def _is_here(outlook: Outlook) -> bool:
    name = outlook.config.model
    if name.startswith(("tiny:", variants.PREFIX)):  # a variant's weights lie packed in the package
        return True
    folder = folder_of(name)
    return folder is not None and all(files_of(folder / expert, None) for expert in outlook.model.engines)


class _Enough(Exception):
    """Two calls were made."""


class _Timed(Around):
    """Times two forwards, and ends the run: the first one warms up."""

    def __init__(self, inner: Any):
        super().__init__(inner)
        self.seconds: list[float] = []

    def call(self, calls: tuple[Call, ...], engine: ExpertEngine, kwargs: dict[str, Any]) -> Any:
        began = time.perf_counter()
        out = super().call(calls, engine, kwargs)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append((time.perf_counter() - began) / len(calls))
        if len(self.seconds) == 2:
            raise _Enough
        return out


def _of_a_call(outlook: Outlook, model: HookedVideoPipeline | None) -> Pace:
    """Of the second call of a run of the model itself."""
    if model is None:
        model = load_model(outlook.config)
        told(model, outlook.config)
    made: list[_Timed] = []

    def around(inner: Any) -> _Timed:
        made.append(_Timed(inner))
        return made[0]

    picture = {"image": tiny.image(64)} if model.takes_image else {}
    call = {"prompt": "a red ball", "seed": 0, "num_inference_steps": 2, "guidance_scale": outlook.config.guidance_scale}
    with contextlib.suppress(_Enough):
        model.run_directed(around, **{**model.adapter.needs, **picture, **call})
    return Pace(outlook.shape.block_flops * model.layers / made[0].seconds[-1], "one timed call; transformers alone")


def _of_a_product(outlook: Outlook, device: str) -> Pace:
    width, _ = outlook.model.adapter.width(outlook.shape.engine.module)
    kind = outlook.shape.engine.module.dtype
    a, b = torch.zeros(ROWS, width, dtype=kind, device=device), torch.zeros(width, width, dtype=kind, device=device)
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        (a @ b).sum().item()
        best = min(best, time.perf_counter() - began)
    return Pace(2.0 * ROWS * width * width / best, "one timed product of its width, which no block beats; transformers alone")
