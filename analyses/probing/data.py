"""Clips of a probe run on disk, and back as one data set."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from cos_interp.analyses.driver.experiment import Unit
from cos_interp.analyses.driver.facts import PIXELS
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.driver.thumbnails import thumbnail
from cos_interp.analyses.kit.problems import Problem, arguments, chosen_steps
from cos_interp.analyses.probing import ENTRY, ClipFacts, ProbesConfig
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.selecting import known_layers
from cos_interp.probes.clip import ClipData, Source
from cos_interp.probes.collect import collect_clip
from cos_interp.probes.dataset import ProbeDataset, assemble
from cos_interp.probes.estimator import LinearProbe
from cos_interp.probes.targets import CLASSIFY, REGRESS, Target, resolve
from cos_interp.tasks.clips import grid_task

SMALL_CLIP = "small clip"  # the tensor of a clip's video, as the page shows it


def targets_of(config: ProbesConfig) -> list[Target]:
    """The targets that were asked for; with prompts of the user's own only those that need no item."""
    if config.prompts is None:
        for text in config.tasks:
            grid_task(text)  # executes one from outside, so that its labels are known
        return resolve(config.targets)
    found = resolve(config.targets)
    return [t for t in found if t.tasks is None] or resolve(["final_latent"])


def used_tasks(config: ProbesConfig, target: Target) -> list[str]:
    """The tasks whose pairs exchange what a probe of a target reads."""
    if config.prompts is not None or config.used_items == 0 or target.form != CLASSIFY:
        return []
    return [task for task in config.task_names if target.tasks is None or task in target.tasks]


def probe_of(config: ProbesConfig, target: Target) -> LinearProbe:
    """One inner split: hundreds of cells choose their penalty."""
    return LinearProbe("ridge" if target.form == REGRESS else config.kind, inner=1)


def hook_names(config: ProbesConfig, layers: int) -> list[str]:
    return [f"blocks.{layer}.{config.site}" for layer in known_layers(config.layers, layers)]


def steps_of(config: ProbesConfig) -> tuple[int, ...]:
    """The probed steps. InterpError for one that the runs do not have."""
    return tuple(sorted(set(chosen_steps(config, config.num_inference_steps))))


def collect_unit(model: HookedVideoPipeline, config: ProbesConfig, problem: Problem) -> Unit:
    """Run one problem and keep what probes need."""
    source = Source(problem.name, arguments(model, config, problem), problem.item)
    names, steps = hook_names(config, model.layers), list(steps_of(config))
    tokens = config.probe_tokens if config.prompts is None else "all"
    small: list[np.ndarray] = []
    see = lambda made: small.append(thumbnail(made.frames))
    clip = collect_clip(model, source, names, steps, targets_of(config), tokens, problem.seed, see)
    tensors = {f"act.{n}": torch.from_numpy(a) for n, a in clip.activations.items()}
    tensors |= {f"label.{n}": torch.from_numpy(a.copy()) for n, a in clip.labels.items()}
    tensors |= {"x_t": torch.from_numpy(clip.x_t), "position": torch.from_numpy(clip.position)}
    if clip.first is not None:
        tensors["first"] = torch.from_numpy(clip.first.copy())
    axes: dict[str, tuple[str, ...]] = {
        k: ("step", "token", "unit") if k.startswith("act.") or k == "x_t" else ("token",) for k in tensors
    }
    tensors[SMALL_CLIP], axes[SMALL_CLIP] = torch.from_numpy(small[0]), PIXELS
    facts = ClipFacts(axes=axes, task=clip.task, grid=clip.grid, steps=clip.steps, sigmas=clip.sigmas)
    return Unit([{"table": "clip", **problem.facts, "tokens": len(clip.position)}], tensors, facts)


def read_clip(store: RunStore, unit: str) -> ClipData:
    _, facts = store.finished(unit)
    assert isinstance(facts, ClipFacts)
    held = {k: v.numpy() for k, v in store.tensors(unit).items()}
    part = lambda head: {k.removeprefix(head): v for k, v in held.items() if k.startswith(head)}
    return ClipData(
        unit, facts.task, part("act."), part("label."), held["x_t"], held.get("first"), held["position"],
        facts.steps, facts.sigmas, facts.grid,
    )  # fmt: skip


def dataset(store: RunStore, config: ProbesConfig, units: Iterable[str]) -> ProbeDataset:
    """All clips of a run; read once a process."""
    return _dataset(store.folder, config, tuple(units))


@lru_cache(maxsize=1)
def _dataset(folder: Path, config: ProbesConfig, units: tuple[str, ...]) -> ProbeDataset:
    store = RunStore(folder, ENTRY.facts)
    clips = [read_clip(store, u) for u in units]
    names = sorted(clips[0].activations, key=lambda n: int(n.split(".")[1]))
    clips = [ClipData(**{**c.__dict__, "activations": {n: c.activations[n] for n in names}}) for c in clips]
    return assemble(clips, len(clips), targets_of(config))
