"""Following a token through a clip of the user's by matching queries to keys (DiffTrack, 2506.17220), on the model's own way."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.driver.experiment import loaded
from cos_interp.analyses.driver.outlook import Use
from cos_interp.analyses.driver.planning import refuse_uses
from cos_interp.analyses.kit.attention_maths import Grid, softmax_scores
from cos_interp.analyses.kit.clips import clip_of
from cos_interp.analyses.probing import FollowConfig
from cos_interp.interp.errors import InterpError
from cos_interp.interp.inverting import invert
from cos_interp.interp.selecting import numbers
from cos_interp.interp.terminal import write_file
from cos_interp.probes.overlay import overlay


class Followed(NamedTuple):
    """Where a token is found in a latent frame, and the share of the other tokens whose queries find that place, too: a key that
    draws all is followed by nobody."""

    frame: int
    row: int
    col: int
    others: float


def followed(q: Tensor, k: Tensor, shape: Grid, cell: tuple[int, int]) -> list[Followed]:
    """For every latent frame the token whose key the query of ``cell`` in the first frame matches best, by ``softmax(q k^T / sqrt
    d)`` over the tokens of that frame, mean over heads. q, k ``[head, token, d]``."""
    frames, rows, cols = shape
    queries, keys = (one.unflatten(1, (frames, rows * cols)) for one in (q, k))
    own = cell[0] * cols + cell[1]
    found = []
    for frame in range(frames):
        best = softmax_scores(queries[:, 0], keys[:, frame]).mean(0).argmax(1)  # of every token of the first frame
        there = int(best[own])
        others = best[torch.arange(len(best)) != own] == there
        found.append(Followed(frame, there // cols, there % cols, float(others.float().mean())))
    return found


def follow(config: FollowConfig, out: Path) -> dict[str, Any]:
    """Invert a clip, follow one token at a layer and a step, write the clip with its track; the places and the round trip.

    InterpError for a cell, layer or step that there is not.
    """
    refuse_uses(lambda _, outlook: [Use("the clip", 2, decoded=1)], config, out.parent)
    config, model = loaded(config)
    frames, taken = clip_of(model, Path(config.video))
    steps: dict[str, Any] = {"num_inference_steps": config.num_inference_steps, "guidance_scale": config.guidance_scale}
    [layer] = numbers([config.layer], model.layers, "layer")
    [step] = numbers([config.step], config.num_inference_steps, "step")
    found = invert(model, frames, prompt=config.prompt, **steps)
    names = [f"blocks.{layer}.attn.hook_{kind}" for kind in "qk"]
    with model.hooks(found.hooks()):
        _, cache = model.run_with_cache(names=names, steps=[step], branches="cond", **found.call)
    q, k = (cache[name, step].flatten(1, 3)[0].movedim(1, 0) for name in names)
    shape = model.token_grid(found.clean).shape
    row, col = config.cell
    if row >= shape[1] or col >= shape[2]:
        raise InterpError(f"--cell {row},{col}: a frame of this clip has {shape[1]} x {shape[2]} tokens, counted from 0")
    track = followed(q, k, shape, (row, col))
    marked = np.zeros(shape, np.int64)
    for at in track:
        marked[at.frame, at.row, at.col] = 1
    video, _ = overlay(frames, marked, ("elsewhere", "followed"))
    from cos_interp.tasks.video import encode_mp4

    write_file(out, encode_mp4(video))
    where = f"blocks.{layer}.attn, step {step} (sigma {found.run.sigmas[step]:.2f})"
    facts = {"video": str(out), "clip": taken, "at": where, "round trip error": found.error}
    return {**facts, "track": [at._asdict() for at in track]}
