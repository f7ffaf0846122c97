"""Parts of a model: stretches of layers, sub-modules, what lies outside the blocks. And one model with parts of another."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.other_models import weights
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.engine import ExpertEngine

Unit = Literal["layer", "window", "part", "ends", "all"]


@dataclass(frozen=True)
class Region:
    """A part of one expert. ``layer`` and ``window``: the blocks ``first`` to ``last``; ``part``: a sub-module of all blocks, by
    its name in them; ``ends``: all but the blocks; ``all``: the whole."""

    unit: Unit
    expert: str
    first: int | None = None
    last: int | None = None
    part: str | None = None

    @property
    def name(self) -> str:
        where = {"part": str(self.part), "ends": "outside the blocks", "all": "everything"}
        return where.get(self.unit) or (f"layer {self.first}" if self.unit == "layer" else f"layers {self.first} to {self.last}")

    def columns(self) -> Row:
        """As columns of results."""
        layer = self.first if self.unit == "layer" else None
        place = {"unit": self.unit, "expert": self.expert, "first": self.first, "last": self.last}
        return {**place, "layer": layer, "part": self.part, "region": self.name}

    def holds(self, layer: int | None, part: str) -> bool:
        """Whether a weight of a sub-module of a layer (None: outside the blocks) is in it."""
        if self.unit in ("all", "ends"):
            return self.unit == "all" or layer is None
        if layer is None:
            return False
        if self.first is None or self.last is None:
            return part == self.part
        return self.first <= layer <= self.last


def windows(layers: int) -> list[tuple[int, int]]:
    """First and last layer of stretches of 1, 2, 4, ... layers, up to half of all, overlapping by half.

    >>> windows(4)
    [(0, 0), (1, 1), (2, 2), (3, 3), (0, 1), (1, 2), (2, 3)]
    """
    sizes = [2**power for power in range(layers.bit_length()) if 2 * 2**power <= layers] or [1]
    return [(at, at + size - 1) for size in sizes for at in range(0, layers - size + 1, max(1, size // 2))]


def stretches(engines: Mapping[str, ExpertEngine]) -> list[Region]:
    """Every stretch of layers of every expert."""
    unit: dict[bool, Unit] = {True: "layer", False: "window"}
    return [Region(unit[a == b], name, a, b) for name, engine in engines.items() for a, b in windows(engine.layers)]


def regions(engines: Mapping[str, ExpertEngine]) -> list[Region]:
    """All regions whose weights are exchanged."""
    made = stretches(engines)
    for name, engine in engines.items():
        parts = dict.fromkeys(part for layer, part in places(engine).values() if layer is not None)
        made += [Region("part", name, part=part) for part in parts]
        made += [Region("ends", name), Region("all", name)]
    return made


def places(engine: ExpertEngine) -> dict[str, tuple[int | None, str]]:
    """Of each weight by its name: the layer (None outside the blocks), the sub-module (``attn1`` of ``blocks.3.attn1.to_q``)."""
    found: dict[str, tuple[int | None, str]] = {}
    for name in weights(engine.module):
        layer = next((n for n, path in enumerate(engine.blocks) if name.startswith(f"{path}.")), None)
        inner = name if layer is None else name[len(engine.blocks[layer]) + 1 :]
        found[name] = (layer, inner.split(".")[0])
    return found


@contextlib.contextmanager
def transplanted(model: HookedVideoPipeline, other: HookedVideoPipeline, region: Region) -> Iterator[None]:
    """In the block a region of the first model has the other's weights. No number is copied: tensors change hands."""
    engine = model.engines[region.expert]
    theirs, mine = weights(other.engines[region.expert].module), weights(engine.module)
    chosen = [name for name, place in places(engine).items() if region.holds(*place)]
    kept = {name: mine[name].data for name in chosen}
    for name in chosen:
        mine[name].data = theirs[name].data
    try:
        yield
    finally:
        for name, data in kept.items():
            mine[name].data = data


def relative(mine: Tensor, theirs: Tensor) -> float:
    """``|theirs - mine| / |mine|``, exactly 0 for equal tensors; infinite where only the first is 0.

    >>> relative(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.0])), relative(torch.tensor([3.0, 4.0]), torch.zeros(2))
    (0.0, 1.0)
    """
    apart = float((theirs.double() - mine.double()).norm())
    return apart if apart == 0 else apart / norm if (norm := float(mine.double().norm())) else math.inf


def weight_rows(model: HookedVideoPipeline, other: HookedVideoPipeline) -> list[Row]:
    """How far the weights are apart, a row an expert, layer and sub-module: ``delta`` relative to the first model's, and
    ``energy``, the square of the difference's norm."""
    rows: list[Row] = []
    for name, engine in model.engines.items():
        mine, theirs = weights(engine.module), weights(other.engines[name].module)
        groups: dict[tuple[int | None, str], list[str]] = {}
        for weight, (layer, part) in places(engine).items():
            groups.setdefault((layer, part if layer is not None else "outside the blocks"), []).append(weight)
        for (layer, part), some in groups.items():
            a, b = (torch.cat([held[weight].detach().flatten() for weight in some]) for held in (mine, theirs))
            energy = float((b.double() - a.double()).square().sum())
            rows.append({"expert": name, "layer": layer, "part": part, "delta": relative(a, b), "energy": energy})
    return rows
