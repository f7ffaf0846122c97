"""Replaying a recorded run with patched activations, at the exact minimum of transformer blocks.

Up to the first patched step nothing runs: the pipeline's loop is fed the recorded model outputs, so the scheduler (with
its history) arrives in the same state bit for bit. In the first patched step a branch without a patch is fed from the
recording too, and a patched branch starts at the patched layer from the recorded residual stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.cache import ActivationCache
from interp.clock import Call
from interp.engine import ExpertEngine, Skip
from interp.errors import InterpError
from interp.model import HookedVideoPipeline
from interp.stage import Stage
from interp.trajectory import Run
from interp.views import AXES, GRID, axes_of, from_axes

Donor = Callable[[int, str], Tensor]  # (step, branch) -> activation [1, ...] with named axes


@dataclass(frozen=True)
class Recording:
    """A run of one video with the residual stream after every block, from which patched runs start."""

    run: Run
    cache: ActivationCache

    def residual(self, layer: int, step: int, branch: str) -> Tensor:
        return self.cache[f"blocks.{layer}.hook_resid_post", step, branch]

    def donor(self, site: str) -> Donor:
        """This recording's own activation at a site, as a donor."""
        if site == "hook_x_t":
            return lambda step, branch: self.run.x_t[step]
        return lambda step, branch: self.cache[site, step, branch]


@dataclass(frozen=True)
class Patch:
    """One row of a patched batch: put the donor's activation at a site, in some steps, branches, tokens and heads."""

    site: str
    steps: tuple[int, ...]
    donor: Donor
    branches: tuple[str, ...] = ("cond",)
    tokens: Tensor | None = None  # bool [frame, row, col]; None: all
    heads: tuple[int, ...] | None = None

    @property
    def first_step(self) -> int:
        return min(self.steps)

    def touches(self, call: Call) -> bool:
        return self.site != "hook_x_t" and call.step in self.steps and call.branch in self.branches

    def apply(self, act: Tensor, step: int, branch: str, axes: tuple[str, ...]) -> Tensor:
        """``act`` of one row ``[1, ...]`` with the donor's values where the patch says."""
        given = self.donor(step, branch).to(act)
        mask = torch.ones([1] * act.ndim, dtype=torch.bool, device=act.device)
        if self.tokens is not None and "frame" in axes:
            shape = [size if axis in GRID else 1 for axis, size in zip(axes, act.shape, strict=True)]
            mask = mask & self.tokens.to(act.device).view(shape)
        if self.heads is not None:
            chosen = torch.zeros(act.shape[axes.index("head")], dtype=torch.bool, device=act.device)
            chosen[list(self.heads)] = True
            mask = mask & chosen.view([-1 if axis == "head" else 1 for axis in axes])
        return torch.where(mask, given, act)


def record(model: HookedVideoPipeline, names: Sequence[str] = (), **kwargs: Any) -> Recording:
    """Run one video and keep what patching needs: the residual stream at every step, and the sites ``names``."""
    kept = {*names, "blocks.*.hook_resid_post"} - {"hook_x_t"}
    return Recording(*model.run_with_cache(names=sorted(kept), **kwargs))


def restart(model: HookedVideoPipeline, run: Run, step: int, latents: Tensor) -> Run:
    """Finish a recorded run of one video from other latents ``[rows, channel, frame, row, col]`` before a step, a row each.

    The steps before are fed from the recording, so the scheduler's history is that of the recorded run.
    """
    recording = Recording(run, ActivationCache())
    patches = [Patch("hook_x_t", (step,), lambda s, b, r=row: latents[r : r + 1]) for row in range(len(latents))]
    return replay_run(model, recording, patches)


def start_layer(model: HookedVideoPipeline, patch: Patch) -> int:
    """The first block that a patched call must run."""
    if patch.site == "hook_x_t":
        return 0
    point = next(e.points[patch.site] for e in model.engines.values())
    if point.layer is None:
        return model.layers if patch.site == "hook_model_out" else 0
    return point.layer + (patch.site.endswith("hook_resid_post"))


def minimal_blocks(model: HookedVideoPipeline, target: Recording, patch: Patch) -> int:
    """Transformer blocks that a patched run cannot avoid: the rest of the patched calls of its first step, then all."""
    calls, first = target.run.calls, patch.first_step
    later = sum(call.step > first for call in calls) * model.layers
    at_first = [c for c in calls if c.step == first and (patch.touches(c) or patch.site == "hook_x_t")]
    return later + len(at_first) * (model.layers - start_layer(model, patch))


def replay(model: HookedVideoPipeline, target: Recording, patches: Sequence[Patch]) -> Tensor:
    """Final latents ``[len(patches), channel, frame, row, col]`` of the target's run, row i with patch i.

    All patches must start at the same step. One row gives, bit for bit, what plain forward hooks give; several rows
    differ from that by rounding, because matrix kernels depend on the batch.
    """
    return replay_run(model, target, patches).latents


def replay_run(model: HookedVideoPipeline, target: Recording, patches: Sequence[Patch]) -> Run:
    """As :func:`replay`, with the trajectory: row i of every tensor belongs to patch i."""
    firsts = {patch.first_step for patch in patches}
    if len(firsts) != 1:
        raise InterpError(f"patches of one batch must start at one step, these start at {sorted(firsts)}: split them")
    player = _Player(model, target, patches, firsts.pop())
    stage = Stage(model.pipe, model.engines, player.call)
    stage.edit_x_t = player.x_t
    rows = len(patches)
    stage.prepared_override = tuple(t.repeat(rows, *[1] * (t.ndim - 1)) for t in target.run.prepared)
    if len(stage.prepared_override) == 1:
        stage.prepared_override = stage.prepared_override[0]
    run = stage.play(**replay_arguments(target.run, rows))
    run.decoder = model.decode
    return run


def replay_arguments(run: Run, rows: int) -> dict[str, Any]:
    """The pipeline's keywords for a batch of copies of a run: its prompts as embeddings, no noise to draw."""
    dropped = ("prompt", "negative_prompt", "generator", "latents", "prompt_embeds", "negative_prompt_embeds")
    kwargs = {k: v for k, v in run.kwargs.items() if k not in dropped}
    positive, negative = run.prompt_embeds
    kwargs["prompt_embeds"] = positive.repeat(rows, 1, 1)
    if negative is not None:
        kwargs["negative_prompt_embeds"] = negative.repeat(rows, 1, 1)
    return kwargs


class _Player:
    """Answers the transformer calls of one patched batch."""

    def __init__(self, model: HookedVideoPipeline, target: Recording, patches: Sequence[Patch], first: int):
        self.model, self.target, self.patches, self.first = model, target, list(patches), first
        self.start = [start_layer(model, patch) for patch in patches]

    def x_t(self, step: int, x_t: Tensor) -> Tensor:
        rows = [r for r, p in enumerate(self.patches) if p.site == "hook_x_t" and step in p.steps]
        if not rows:
            return x_t
        out = x_t.clone()
        for row in rows:
            out[row : row + 1] = self.patches[row].apply(x_t[row : row + 1], step, "cond", AXES["latent"])
        return out

    def call(self, call: Call, engine: ExpertEngine, args: tuple, kwargs: dict[str, Any]) -> tuple:
        recorded = self.target.run.outputs[call.index]
        if call.step > self.first:
            return engine(args, kwargs, self._visits(engine, call, range(len(self.patches))))
        out = recorded.repeat(len(self.patches), *[1] * (recorded.ndim - 1))
        if call.step < self.first:
            return (out,)
        full = [r for r, p in enumerate(self.patches) if p.site == "hook_x_t"]
        touched = [r for r, p in enumerate(self.patches) if p.touches(call)]
        for layer in sorted({self.start[r] for r in touched}):
            self._resume(out, engine, call, kwargs, [r for r in touched if self.start[r] == layer], layer)
        if full:
            out[full] = engine((), _rows(kwargs, full), {})[0]
        return (out,)

    def _resume(self, out: Tensor, engine: ExpertEngine, call: Call, kwargs: dict, rows: list[int], layer: int) -> None:
        """Run the rows that start at a layer and put their results in place."""
        visits = self._visits(engine, call, rows)
        skip = None
        if layer > 0:
            residual = self.target.residual(layer - 1, call.step, call.branch)
            after = f"blocks.{layer - 1}.hook_resid_post"
            parts = [
                self.patches[r].apply(residual, call.step, call.branch, AXES["tokens"])
                if self.patches[r].site == after
                else residual
                for r in rows
            ]
            visits.pop(after, None)
            skip = Skip(layer, from_axes(torch.cat(parts), "tokens"))
        out[rows] = engine((), _rows(kwargs, rows), visits, skip)[0]

    def _visits(self, engine: ExpertEngine, call: Call, rows: Sequence[int]) -> dict[str, Callable]:
        """For each patched site of this call: a visitor that edits the rows concerned (``rows`` are those in the batch)."""
        sites: dict[str, list[tuple[int, Patch]]] = {}
        for place, row in enumerate(rows):
            if self.patches[row].touches(call):
                sites.setdefault(self.patches[row].site, []).append((place, self.patches[row]))
        return {site: self._visitor(edits, call, engine.points[site].kind) for site, edits in sites.items()}

    def _visitor(self, edits: list[tuple[int, Patch]], call: Call, kind: str) -> Callable[[Tensor], Tensor]:
        def visit(act: Tensor) -> Tensor:
            out = act.clone()
            for place, patch in edits:
                out[place : place + 1] = patch.apply(act[place : place + 1], call.step, call.branch, axes_of(kind, act))
            return out

        return visit


def _rows(kwargs: Mapping[str, Any], rows: list[int]) -> dict[str, Any]:
    """The call's batch restricted to some rows."""
    batch = kwargs["hidden_states"].shape[0]
    return {k: v[rows] if isinstance(v, Tensor) and v.shape[:1] == (batch,) else v for k, v in kwargs.items()}
