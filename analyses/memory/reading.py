"""One run read for memory: attention that the object's tokens get, how they stay themselves, tracking, probe features."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.attention_maths import Grid, frame_of, softmax_scores
from cos_interp.analyses.kit.attention_reader import checked_layers, query_key_hooks, some_queries
from cos_interp.analyses.kit.problems import Problem, arguments, chosen_steps
from cos_interp.analyses.kit.tracks import Track, pixel_frames, tokens_of, tracks
from cos_interp.analyses.memory import MemoryConfig
from cos_interp.analyses.memory.decoding import KINDS, Point, probe_points, token_of, x_t_features
from cos_interp.analyses.memory.tracking import tracking_rows
from cos_interp.interp.errors import InterpError
from cos_interp.interp.hooking import FwdHook
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.clock import Hook
from cos_interp.interp.trajectory import Run


@dataclass
class Reading:
    """Collects rows and probe features while a run goes on."""

    problem: Problem
    config: MemoryConfig
    shape: Grid
    followed: list[Track]
    points: list[Point]
    rows: list[Row] = field(default_factory=list)
    features: dict[tuple[int, int], Tensor] = field(default_factory=dict)  # (step, layer) -> [point, d_model]
    first: dict[int, Tensor] = field(default_factory=dict)  # layer -> centred residual of the first step
    received: dict[tuple[int, int], Tensor] = field(default_factory=dict)  # (step, layer) -> [first frame's token]

    @property
    def keys(self) -> Tensor:
        """The followed tokens of the first latent frame, bool ``[token]``."""
        return self.at(0)

    def at(self, frame: int) -> Tensor:
        """The followed tokens of a latent frame, bool ``[token]``: where the objects truly are, or the chosen cell."""
        if not self.followed:
            return own_cell(self.config.cell, frame, self.shape)
        last = pixel_frames(frame, self.shape[0])[-1]
        return tokens_of([t.cells[last] for t in self.followed], frame, self.shape)

    def attention(self, hook: Hook, q: Tensor, k: Tensor) -> None:
        where = {"layer": hook.layer, "step": hook.step, "sigma": hook.sigma}
        flat = q.flatten(1, 3)
        got = received(flat, k, self.shape)
        self.received[hook.step, hook.block] = got.mean(0)
        self.rows += [{**where, **row} for row in received_rows(got, self.keys)]
        for track in self.followed:
            self.rows += [{**where, **row} for row in tracking_rows(track, flat, k, self.shape)]

    def residual(self, act: Tensor, hook: Hook) -> None:
        where = {"layer": hook.layer, "step": hook.step, "sigma": hook.sigma}
        if self.points:
            places = [token_of(point, self.shape) for point in self.points]
            self.features[hook.step, hook.block] = torch.stack([act[0][place] for place in places]).float().cpu()
        now = centred(act[0].flatten(0, 2))
        before = self.first.setdefault(hook.block, now)
        alike = F.cosine_similarity(now, before, dim=-1).cpu()
        for frame in range(self.shape[0]):
            inside, own = frame_of(self.shape) == frame, self.at(frame)
            row = {"frame": frame, "object": float(alike[own].mean()), "other": float(alike[inside & ~own].mean())}
            self.rows.append({"kind": "similarity", **where, **row})


def own_cell(cell: tuple[int, ...] | None, frame: int, shape: Grid) -> Tensor:
    """The token followed in a problem without a known object, bool ``[token]``: the chosen cell, else the centre."""
    frames, rows, cols = shape
    row, col = cell or (rows // 2, cols // 2)
    if not (0 <= row < rows and 0 <= col < cols):
        raise InterpError(f"--cell {row},{col} was asked for; the latent grid has {rows} rows and {cols} columns")
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[frame, row, col] = True
    return mask.flatten()


def centred(tokens: Tensor) -> Tensor:
    """Residuals ``[token, d_model]`` without what all tokens share, which would make everything look alike."""
    tokens = tokens.float()
    return tokens - tokens.mean(0, keepdim=True)


def received(q: Tensor, k: Tensor, shape: Grid) -> Tensor:
    """Attention that each token of the first frame gets from each later frame, ``[later frame, token of the first]``.

    In multiples of even attention (1 / number of tokens), mean over heads; q, k ``[head, token, d]``.
    """
    queries, frames = some_queries(shape), frame_of(shape)
    pattern = softmax_scores(q[:, queries], k).mean(0).cpu() * k.shape[1]
    return torch.stack([pattern[frames[queries] == frame].mean(0)[frames == 0] for frame in range(1, shape[0])])


def received_rows(got: Tensor, keys: Tensor) -> list[Row]:
    """Of :func:`received`: what the followed tokens get, bool ``[token]``, and the mean other one, a row a later frame."""
    own = keys[: got.shape[1]]
    return [
        {"kind": "attention", "frame": frame, "object": float(row[own].mean()), "other": float(row[~own].mean())}
        for frame, row in enumerate(got, 1)
    ]


def token_shape(model: HookedVideoPipeline, latents: Tensor) -> Grid:
    """The token grid of a latent ``[batch, channel, frame, row, col]``."""
    return model.token_grid(latents).shape


def read_run(
    model: HookedVideoPipeline, config: MemoryConfig, problem: Problem, shape: Grid
) -> tuple[Run, Reading, dict[str, Tensor]]:
    """Generate once and read at the chosen steps: the run, the reading, and tensors to store."""
    steps = tuple(sorted({0, *chosen_steps(config, 5)}))
    item = problem.item
    points = probe_points(item, shape, np.random.default_rng([problem.seed, 3])) if item else []
    reading = Reading(problem, config, shape, tracks(item) if item else [], points)
    layers = checked_layers(model, None)
    hooks: list[FwdHook] = query_key_hooks(model, "attn", layers, steps, reading.attention)
    when = f"step=[{','.join(map(str, steps))}], branch=cond"
    hooks.append((f"blocks.*.hook_resid_post @ {when}", reading.residual))
    run = model.run_with_hooks(fwd_hooks=hooks, **arguments(model, config, problem))
    return run, reading, probe_tensors(run, reading, steps, layers) | place_tensors(reading, steps, layers)


def place_tensors(reading: Reading, steps: tuple[int, ...], layers: list[int]) -> dict[str, Tensor]:
    """``received [layer, row, col]``, mean over later frames and read steps, and ``followed [row, col]``, where objects stand:
    what is looked at wherever it stands, and what because it stands there, other items tell apart. None without known objects."""
    if not reading.followed:
        return {}
    size = reading.shape[1:]
    got = torch.stack([torch.stack([reading.received[step, layer] for step in steps]).mean(0) for layer in layers])
    return {"received": got.unflatten(1, size), "followed": reading.keys[: got.shape[1]].view(size)}


def probe_tensors(run: Run, reading: Reading, steps: tuple[int, ...], layers: list[int]) -> dict[str, Tensor]:
    """``residual [step, layer, point, d_model]``, ``x_t [step, point, feature]``, ``label [point]``, ``kind [point]`` (a number
    in :data:`KINDS`); none without points."""
    if not reading.points:
        return {}
    residual = torch.stack([torch.stack([reading.features[s, layer] for layer in layers]) for s in steps])
    x_t = torch.stack([x_t_features(run, s, reading.points, reading.shape) for s in steps])
    label, kind = torch.tensor([(p.label, KINDS.index(p.kind)) for p in reading.points]).T.contiguous()
    return {"residual": residual, "x_t": x_t.float(), "label": label, "kind": kind}
