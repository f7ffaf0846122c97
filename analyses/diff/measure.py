"""Where do two models part, on the same inputs, and which layers of the one make the other of it?

The two make a video each from one noise. Then regions of the first model get the second one's weights, and its blocks the updates
that the second one's blocks wrote: how far along the difference of the two final latents does its run go?
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.diff import DiffConfig, DiffFacts
from cos_interp.analyses.diff.against import other_model
from cos_interp.analyses.diff.apart import Updates, apart_rows, ends
from cos_interp.analyses.diff.regions import Region, regions, stretches, transplanted, weight_rows
from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.facts import PIXELS
from cos_interp.analyses.driver.outlook import recording_budget
from cos_interp.analyses.driver.statistics import distance, projection
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.other_models import check_build, check_content, content, kept_apart
from cos_interp.analyses.kit.problems import Problem, arguments, chosen_steps, each_problem, fits, judge_latents, verdict_columns
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.trajectory import Run
from cos_interp.tasks.scorer import has_verdict


def check(config: DiffConfig, model: HookedVideoPipeline) -> None:
    """InterpError for a second model that is not there, is none of the first one's build, or has other content than was asked."""
    fits(config, model)
    chosen_steps(config)
    other = other_model(model, config)
    check_build(model, other)
    check_content(other, config.against_digest, "--against-digest")


def settle(config: DiffConfig, model: HookedVideoPipeline, held: Mapping[str, Any]) -> DiffConfig:
    """With the content of the second model, so that a run is continued with the same one."""
    return config.model_copy(update={"against_digest": content(other_model(model, config))})


def measure(model: HookedVideoPipeline, config: DiffConfig, problem: Problem) -> Unit:
    other, call = other_model(model, config), arguments(model, config, problem)
    mine, theirs = model.run(**call), other.run(**call)
    steps, why = chosen_steps(config), kept_apart(model, other)
    rows = [{"kind": "apart", **row} for row in apart_rows(model, other, steps, recording_budget(config), call)]
    if problem.first and why is None:
        rows += [{"kind": "weights", **row} for row in weight_rows(model, other)]
    read = _reader(model, problem, mine, theirs)
    rows += [{"kind": "plain", "what": what, **read(run.latents)} for what, run in (("first", mine), ("other", theirs))]
    if "weights" in config.what and why is None:
        for region in regions(model.engines):
            with transplanted(model, other, region):
                rows.append({"kind": "transplant", "what": "weights", **region.columns(), **read(model.run(**call).latents)})
    if "activations" in config.what:
        rows += _activations(model, other, config, call, read)
    facts = DiffFacts(
        sigmas=tuple(mine.sigmas), prompt=call["prompt"], against=other.name, kept_apart=why, axes={"videos": ("model", *PIXELS)}
    )
    videos = torch.from_numpy(np.stack([run.decode()[0] for run in (mine, theirs)]))
    return Unit([{**problem.facts, **row} for row in rows], {"videos": videos}, facts)


def _activations(
    model: HookedVideoPipeline,
    other: HookedVideoPipeline,
    config: DiffConfig,
    call: dict[str, Any],
    read: Callable[[Tensor], Row],
) -> list[Row]:
    """The other run's updates, put in by stretches of layers."""
    _, kept = other.run_with_cache(names=ends(model), max_bytes=recording_budget(config), **call)
    rows = []
    for region in stretches(model.engines):
        hooks = Updates(kept, _layers(region), region.expert).hooks(model)
        run = model.run_with_hooks(fwd_hooks=hooks, **call)
        rows.append({"kind": "transplant", "what": "activations", **region.columns(), **read(run.latents)})
    return rows


def _layers(region: Region) -> range:
    assert region.first is not None and region.last is not None
    return range(region.first, region.last + 1)


def _reader(model: HookedVideoPipeline, problem: Problem, mine: Run, theirs: Run) -> Callable[[Tensor], Row]:
    """What is read of a final latent: ``effect``, 0 as the first model's and 1 as the other's; ``moved``, its distance from the
    first one's; the verdict, and whether it is the other's where the two differ."""
    verdicts = [judge_latents(model, problem, run.latents) for run in (mine, theirs)]

    def read(latents: Tensor) -> Row:
        found = judge_latents(model, problem, latents)
        row: Row = {"effect": projection(latents, mine.latents, theirs.latents), "moved": distance(latents, mine.latents)}
        row |= verdict_columns(found)
        told = [(v.status, v.answer) if v is not None and has_verdict(v) else None for v in (*verdicts, found)]
        return {**row, "as_other": None if None in told or told[0] == told[1] else float(told[2] == told[1])}

    return read


pieces = each_problem
work = each_unit(measure)
