"""Grids of patched runs beside the same by hand, and how many blocks ran."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks import by_hand
from benchmarks.shapes import ORGANISM, model
from benchmarks.timing import paired
from cos_interp.interp import Patch, record, sweep
from cos_interp.interp.sharing import Shared
from cos_interp.interp.sweeping import finished

STEPS, ROUNDS = 8, 5
CELLS = [(step, layer) for step in (0, 2, 5, 7) for layer in (0, 3, 5, 7)]


def measure() -> dict[str, Any]:
    """16 single-step cells of whole residual streams by seven ways, and block calls of a grid of ``from`` ranges."""
    hooked, call = model(ORGANISM, STEPS)
    hooked.pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        target, donor = (record(hooked, seed=seed, **call) for seed in (0, 1))
        times = paired(_ways(hooked, call, target, donor), ROUNDS)
        apart, blocks = _apart(hooked, target, donor), _blocks(hooked, target, donor)
    return {"16 cells": times, "batch of 8, largest difference": apart, "from": blocks}


def _ways(hooked: Any, call: dict[str, Any], target: Any, donor: Any) -> dict[str, Callable[[], list[Tensor]]]:
    plain = {**hooked.defaults, **call}
    given = {cell: donor.residual(cell[1], cell[0], "cond").flatten(1, 3) for cell in CELLS}
    hand = by_hand.Replay(hooked, target.run, plain)
    patches = _patches(donor)
    ways: dict[str, Callable[[], list[Tensor]]] = {
        "replay by hand": lambda: [hand.cell(*cell, given[cell]) for cell in CELLS],
        "this tool": lambda: _rows(hooked, target, patches, 1),
        "this tool, 8 rows a forward": lambda: _rows(hooked, target, patches, 8),
        "hooks from step k": lambda: [hand.whole_step(*cell, given[cell]) for cell in CELLS],
        "hooks, whole runs": lambda: [by_hand.patched(hooked.pipe, plain, *cell, given[cell]) for cell in CELLS],
    }
    right = ways["hooks, whole runs"]()
    for name in ("replay by hand", "this tool", "hooks from step k"):
        if not all(torch.equal(one, other) for one, other in zip(ways[name](), right, strict=True)):
            raise AssertionError(f"{name}: not the latents of plain hooks")
    return ways


def _patches(donor: Any) -> list[Patch]:
    names = {layer: f"blocks.{layer}.hook_resid_post" for _, layer in CELLS}
    return [Patch(names[layer], steps=(step,), donor=donor.donor(names[layer])) for step, layer in CELLS]


def _rows(hooked: Any, target: Any, patches: list[Patch], batch: int) -> list[Tensor]:
    """As :func:`sweep` finishes its cells."""
    return [latents for _, latents in sorted(finished(hooked, target, patches, batch, Shared()), key=lambda one: one[0])]


def _apart(hooked: Any, target: Any, donor: Any) -> float:
    patches = _patches(donor)
    pairs = zip(_rows(hooked, target, patches, 8), _rows(hooked, target, patches, 1), strict=True)
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)


def _blocks(hooked: Any, target: Any, donor: Any) -> dict[str, int]:
    before = hooked.block_calls
    sweep(hooked, target, donor, metric=lambda latents: 0.0, span="from")
    steps, layers = STEPS, hooked.layers
    every = sum((steps - step) * layers for step in range(steps)) * layers
    return {"block calls": hooked.block_calls - before, "a whole replay a cell": every}
