"""Knocking out attention to the first frame's object: are those tokens used as memory? (CoS section 4, made causal.)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.driver.statistics import distance
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.ablation import thirds
from cos_interp.analyses.kit.attention_maths import Grid, blocked, knock_out
from cos_interp.analyses.kit.problems import Problem, arguments, item_of, judge, verdict_columns
from cos_interp.analyses.kit.tracks import Track, nearest_sprites, tracks
from cos_interp.analyses.memory import MemoryConfig
from cos_interp.interp.batch import chunks, joined
from cos_interp.interp.errors import InterpError
from cos_interp.interp.hooking import EditFn
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.clock import Hook
from cos_interp.interp.trajectory import Run

PARTS = ("all", "early", "middle", "late")
CUTS = [(part, "all") for part in PARTS] + [("all", part) for part in PARTS[1:]]  # (steps, layers)
SETS = ("object", "random", "object column", "random column")
LARGEST = 4 << 30  # bytes of one pattern


@dataclass(frozen=True)
class Cut:
    """One knocked-out run: which keys (bool ``[token]``), in which steps and layers."""

    tokens: str
    keys: Tensor
    step_part: str
    layer_part: str


def random_keys(keys: Tensor, shape: Grid, rng: np.random.Generator) -> Tensor:
    """As many other tokens of the same frames as ``keys`` has, bool ``[token]``."""
    out = torch.zeros_like(keys)
    per_frame = keys.unflatten(0, (shape[0], -1))
    for frame in range(shape[0]):
        others = (~per_frame[frame]).nonzero()[:, 0].numpy()
        count = min(int(per_frame[frame].sum()), len(others))
        out.unflatten(0, (shape[0], -1))[frame, rng.permutation(others)[:count].tolist()] = True
    return out


def column(keys: Tensor, shape: Grid) -> Tensor:
    """The cells of ``keys`` in every latent frame, bool ``[token]``."""
    return keys.unflatten(0, (shape[0], -1)).any(0).repeat(shape[0])


def cuts(keys: Tensor, shape: Grid, rng: np.random.Generator) -> list[Cut]:
    """Every step range with all layers and every layer range with all steps, on four sets of tokens: the object in the first
    frame, its cells in all frames (so that no copy in a later frame can stand in), and as many random ones of each kind."""
    out = []
    for step_part, layer_part in CUTS:
        random = random_keys(keys, shape, rng)
        sets = (keys, random, column(keys, shape), column(random, shape))
        out += [Cut(name, tokens, step_part, layer_part) for name, tokens in zip(SETS, sets, strict=True)]
    return out


def knocking(made: Sequence[Cut], shape: Grid, steps: int, layers: int) -> EditFn:
    """An edit of ``attn.hook_pattern`` ``[row, head, frame, row, col, key]`` that applies cut i to row i of the batch."""
    in_steps, in_layers = thirds(steps), thirds(layers)
    pairs = [blocked(cut.keys, shape) for cut in made]

    def edit(act: Tensor, hook: Hook) -> Tensor | None:
        if act[0].numel() * act.element_size() > LARGEST:
            raise InterpError(
                f"the attention pattern of {act.shape[-1]} tokens is too large to edit: use --knocked 0 or a smaller video"
            )
        active = [
            row
            for row, cut in enumerate(made)
            if hook.step in in_steps[cut.step_part] and hook.layer in in_layers[cut.layer_part]
        ]
        if not active:
            return None
        flat = act.flatten(2, 4).clone()
        for row in active:
            flat[row] = knock_out(flat[row], pairs[row].to(flat.device))
        return flat.view_as(act)

    return edit


def kept_share(clip: np.ndarray, followed: Sequence[Track]) -> float:
    """Share of the later pixel frames in which a seen object's true cell shows it (nearest sprite), over all objects.

    It says what became of the objects alone, where the verifier asks for every cell of the video.
    """
    shown = nearest_sprites(clip)
    right = [shown[f][t.cells[f]] in t.classes for t in followed for f in range(1, len(shown)) if t.seen[f]]
    return float(np.mean(right)) if right else float("nan")


def knocked_rows(
    model: HookedVideoPipeline, config: MemoryConfig, problem: Problem, run: Run, keys: Tensor, shape: Grid
) -> list[Row]:
    """One row for the untouched run and one for every cut: verdict, and the change of the final latent relative to its norm."""
    rng = np.random.default_rng([problem.seed, 7])
    made = cuts(keys, shape, rng)
    finals = [run.latents]
    for part in chunks(made, config.batch):
        call = joined([arguments(model, config, problem)] * len(part))
        edit = knocking(part, shape, run.steps, model.layers)
        finals.append(model.run_with_hooks(fwd_hooks=[("blocks.*.attn.hook_pattern", edit)], **call).latents)
    latents = torch.cat(finals)
    clips = model.decode(latents) if problem.item is not None else [None] * len(latents)
    rows = []
    for cut, latent, clip in zip([Cut("none", keys, "all", "all"), *made], latents, clips, strict=True):
        verdict = None if clip is None else judge(problem, clip)
        rows.append({
            "kind": "knockout", "tokens": cut.tokens, "step_part": cut.step_part, "layer_part": cut.layer_part,
            "change": distance(latent, run.latents[0]),
            "solved": None if verdict is None else float(verdict.solved),
            "kept": None if clip is None else kept_share(clip, tracks(item_of(problem))), **verdict_columns(verdict),
        })  # fmt: skip
    return rows
