"""Twins: a model's autoencoder and text encoder with random transformers, which know nothing of what it learnt."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from weakref import WeakSet

import torch

from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.driver.loaded import findings_in
from cos_interp.analyses.driver.store import RunStore
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.offloading import in_turn, offload_of, wait_alike

DRAWN = 4  # bytes of a weight as it is drawn
FIRST = 77_000  # seed of the first twin's weights: no training here starts from it
_MADE = WeakSet[HookedVideoPipeline]()  # those of this process
Shown = Mapping[str, Number] | None  # what a twin's run found, by the key of the rule; None where it did not run


def names(count: int) -> list[str]:
    """The run folders of so many twins, inside that of the run that they stand beside."""
    return [f"twin-{number}" for number in range(count)]


def twin_of(model: HookedVideoPipeline, number: int) -> HookedVideoPipeline:
    """The model with transformers as its library draws them, all else its own; their weights lie or wait where its own do. They
    are drawn in float32 in host memory, one after the other."""
    made, ways = {}, {name: offload_of(model.pipe, engine.module) for name, engine in model.engines.items()}
    device = getattr(model.pipe, "_execution_device", model.pipe.device)
    for name, engine in model.engines.items():
        module = engine.module
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(FIRST + number)
            drawn = type(module).from_config(module.config).eval()
        kept = dict(module.named_parameters())
        for weight, new in drawn.named_parameters():
            own = kept.get(weight)  # none where LoRA has wrapped it; whole numbers where it is quantised
            new.data = new.data.to(module.dtype if own is None or not own.is_floating_point() else own.dtype)
        wait_alike(drawn, ways[name], module.device if ways[name] == "none" else device)
        made[name] = drawn
    parts = {name: part for name, part in model.pipe.components.items() if name not in made}
    settings = {name: value for name, value in model.pipe.config.items() if name in _settings_of(model) and name not in parts}
    twin = HookedVideoPipeline(type(model.pipe)(**parts, **made, **settings), f"twin {number} of {model.name}", model.defaults)
    if "model" in ways.values():
        in_turn(twin.pipe, device)
    _MADE.add(twin)
    return twin


def is_one(model: HookedVideoPipeline) -> bool:
    """Whether a model is a twin, which is there beside the one that it stands beside."""
    return model in _MADE


def gone(model: HookedVideoPipeline) -> None:
    """Let go of the twins of a model: what they shared waits for its own turn again."""
    if any(offload_of(model.pipe, engine.module) == "model" for engine in model.engines.values()):
        in_turn(model.pipe, model.pipe._execution_device)


def drawn_bytes(model: HookedVideoPipeline, stays: bool) -> int:
    """Bytes of host memory that a twin takes while it is drawn; ``stays``: whether its weights are there afterwards, too."""
    most = before = 0
    for engine in model.engines.values():
        weights = list(engine.module.parameters())
        most = max(most, before + sum(weight.numel() for weight in weights) * DRAWN)
        before += sum(weight.numel() * weight.itemsize for weight in weights) if stays else 0
    return max(most, before)


def _settings_of(model: HookedVideoPipeline) -> set[str]:
    """What the pipeline is made with beside its components: the boundary between two experts, and the like."""
    return set(inspect.signature(type(model.pipe).__init__).parameters) - {"self", *model.pipe.components}


def shown(folder: Path, count: int) -> list[Shown]:
    """What the twins' runs inside a run folder found; None for one that could not run, which opposes nothing and so lets nothing
    pass either."""
    return [_shown(folder / name) for name in names(count)]


def _shown(folder: Path) -> Shown:
    store = RunStore(folder)
    try:
        if (store.facts() or {}).get("status") != "complete":
            return None
        found: Sequence[Finding] = findings_in(store)
    except RunError:
        return None
    return {finding.key: _with_why(finding) for finding in found if finding.key}


def _with_why(finding: Finding) -> Number:
    """Its number; where it has none also why, without which a twin without items would let a claim pass unsaid."""
    return finding.number if finding.number.n else replace(finding.number, why=finding.why)
