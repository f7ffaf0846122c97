"""Merged runs of one problem, and their control: one seed at the norm that merging leaves.

A mean of independent noises is shorter than each of them. What a shorter tensor alone does, without anything of the other seeds
in it, is no work of the ensemble.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cos_interp.analyses.ensemble import EnsembleConfig
from cos_interp.interp.batch import joined
from cos_interp.interp.ensemble import Combine, EnsembleRecipe, merge, run_ensemble
from cos_interp.interp.hooking import FwdHook
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.clock import Hook
from cos_interp.interp.trajectory import Run


@dataclass(frozen=True)
class Merged:
    """Final latents: of the ensemble ``[1, ...]``, and of each member alone at the merged norm ``[member, ...]``."""

    ensemble: Tensor
    scaled: Tensor


def scaled(members: Tensor, combine: Combine = "mean") -> Tensor:
    """Every member ``[member, ...]`` at the norm that merging would give it, its direction untouched."""
    return members * (_norms(merge(members, combine)) / _norms(members).clamp_min(1e-12))


def _norms(rows: Tensor) -> Tensor:
    return rows.flatten(1).norm(dim=1).view(-1, *[1] * (rows.ndim - 1))


def recipes(config: EnsembleConfig) -> dict[str, EnsembleRecipe | None]:
    """By tensor; None for the final latents, which no step of the model sees."""
    made = lambda tensor: EnsembleRecipe(tensor, config.steps, config.layers, config.combine)
    return {tensor: None if tensor == "final" else made(tensor) for tensor in config.tensors}


def merged(
    model: HookedVideoPipeline, recipe: EnsembleRecipe | None, config: EnsembleConfig, runs: Sequence[Run], seeds: Sequence[int],
    call: dict[str, Any],
) -> Merged:  # fmt: skip
    """The ensemble of some seeds and its control. ``runs``: the members' own runs; ``call``: the pipeline's keywords, no seed."""
    if recipe is None:
        finals = torch.cat([run.latents for run in runs])
        return Merged(merge(finals, config.combine)[:1], scaled(finals, config.combine))
    alone = model.run_with_hooks(fwd_hooks=scaling(recipe, model.layers), **joined([{**call, "seed": seed} for seed in seeds]))
    return Merged(run_ensemble(model, recipe, seeds, **call).latents[:1], alone.latents)


def scaling(recipe: EnsembleRecipe, layers: int) -> list[FwdHook]:
    """The edits of the control, where and when those of the recipe are."""

    def edit(act: Tensor, hook: Hook) -> Tensor:
        return scaled(act, recipe.combine)

    at = f"step=[{','.join(map(str, recipe.steps))}]"
    return [(f"{name} @ {at}", edit) for name in recipe.names(layers)]
