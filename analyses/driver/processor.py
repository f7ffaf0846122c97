"""The kind of processor that numbers are computed on: on one kind, with one number of threads, a run ends with the same bytes."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cos_interp.interp.model import HookedVideoPipeline

# relative, of a measured value in float32, between kinds of processor; distances of two items of the organism after 20 steps
# differed by up to 1.7e-6 between torch's AVX2 and its plain kernels
AGREEMENT = 1e-5


def kind_of(model: HookedVideoPipeline | None) -> str:
    """The processor that a model computes on, by name; of a CPU also the vector instructions that torch uses, on which sums
    depend."""
    import torch

    device = torch.device("cpu") if model is None else getattr(model.pipe, "_execution_device", model.pipe.device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpu()}, {torch.backends.cpu.get_cpu_capability()}" + ("" if device.type == "cpu" else f", {device.type}")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def mixed(makers: Sequence[tuple[str, str]]) -> Mapping[str, int]:
    """How many units were made on what, in words; empty where all are of one kind and one number of threads."""
    told = [f"{kind or 'a processor that was not noted'} ({threads or '?'} threads)" for kind, threads in makers]
    found = {one: told.count(one) for one in sorted(set(told))}
    return found if len(found) > 1 else {}


def mixed_note(makers: Mapping[str, int]) -> list[str]:
    """What a page says of units of several kinds; nothing of those of one."""
    if not makers:
        return []
    told = ", ".join(f"{count} on {kind}" for kind, count in makers.items())
    return [
        f"The units were made on several kinds of processor ({told}). On one kind a run ends with the same bytes; between kinds "
        f"measured values agree within {AGREEMENT:.0e} relative in float32, and a reading at its threshold can go either way."
    ]
