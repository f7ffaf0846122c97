"""Knocking out attention to an object of the first frame: are those tokens used as memory? (CoS section 4, made causal.)

The control is another object of the same picture: random tokens are mostly floor, which any model could do without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.driver.statistics import distance
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.ablation import thirds
from cos_interp.analyses.kit.attention_maths import Grid, unseen
from cos_interp.analyses.kit.problems import Problem, arguments, item_of, judge, verdict_columns
from cos_interp.analyses.kit.rows import at_once
from cos_interp.analyses.kit.tracks import nearest_sprites, tokens_of
from cos_interp.analyses.memory import MemoryConfig
from cos_interp.analyses.memory.objects import frames_after_return, later_frames, pair_of, share_right
from cos_interp.interp.batch import chunks, joined
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.cutting import Cutting, Unseen
from cos_interp.interp.trajectory import Run
from cos_interp.tasks import Item
from cos_interp.tasks.scorer import solved_of

PARTS = ("all", "early", "middle", "late")
CUTS = [(part, "all") for part in PARTS] + [("all", part) for part in PARTS[1:]]  # (steps, layers)
SETS = ("object", "another object", "random", "object column", "random column")
KEPT = ("kept", "returned", "kept_other")


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


def cuts(compared: dict[str, Tensor], shape: Grid, rng: np.random.Generator) -> list[Cut]:
    """Every step range with all layers and every layer range with all steps, on each of the sets of tokens that are compared
    (bool ``[token]`` by name). Everywhere also on as many random tokens of the first frame, and on the object's cells and random
    ones in all frames, so that no copy in a later frame can stand in."""
    random = random_keys(compared["object"], shape, rng)
    beside = {"random": random, "object column": column(compared["object"], shape), "random column": column(random, shape)}
    out = [Cut(name, keys, *part) for part in CUTS for name, keys in compared.items()]
    return out + [Cut(name, keys, "all", "all") for name, keys in beside.items() if name not in compared]


def compared_keys(problem: Problem, own_cell: Tensor, shape: Grid, rng: np.random.Generator) -> dict[str, Tensor]:
    """The first frame's tokens of an object and, where the picture has one, of another; in a problem without known objects the
    chosen cell ``own_cell`` and a random one."""
    if problem.item is None:
        return {"object": own_cell, "random": random_keys(own_cell, shape, rng)}
    named = zip(SETS, pair_of(problem.item), strict=False)
    return {name: tokens_of(track.cells[:1], 0, shape) for name, track in named if track is not None}


def whole_attention(model: HookedVideoPipeline) -> None:
    """InterpError where tokens do not look at all tokens of the video at once, or their patterns are not to be had."""
    points = next(iter(model.engines.values())).points
    for layer in range(model.layers):
        point = points.get(f"blocks.{layer}.attn.hook_pattern")
        if point is None or point.site.fold is not None:
            how = "has no attention pattern" if point is None else "attends within frames or positions"
            raise InterpError(f"{model.name}: block {layer} {how}: no object can be cut from later frames, give --knocked 0")


def knocking(made: Sequence[Cut], shape: Grid, steps: int, layers: int) -> Callable[[int, int, int], Unseen]:
    """What row i of a batch does not see, as cut i says, by step, layer and row."""
    in_steps, in_layers = thirds(steps), thirds(layers)
    pairs = [unseen(cut.keys, shape) for cut in made]

    def cut_at(step: int, layer: int, row: int) -> Unseen:
        there = step in in_steps[made[row].step_part] and layer in in_layers[made[row].layer_part]
        return pairs[row] if there else ()

    return cut_at


def kept_columns(item: Item, clip: np.ndarray) -> Row:
    """What became of the objects in a video: shares of the later pixel frames in which they are to be seen that show them.

    ``kept``: the object; ``returned``: the same after it was out of sight; ``kept_other``: the other object.
    """
    shown = nearest_sprites(clip)
    track, other = pair_of(item)
    return {
        "kept": share_right(shown, track, later_frames(track)),
        "returned": share_right(shown, track, frames_after_return(track)),
        "kept_other": float("nan") if other is None else share_right(shown, other, later_frames(other)),
    }


def knocked_rows(
    model: HookedVideoPipeline, config: MemoryConfig, problem: Problem, run: Run, keys: Tensor, shape: Grid
) -> list[tuple[Row, np.ndarray | None]]:
    """One row for the untouched run and one for every cut: verdict, objects kept, and the change of the final latent relative to
    its norm; beside it the video, where it is judged or the problem the first. ``keys``: the tokens that are followed, bool
    ``[token]``, for a problem without known objects."""
    rng = np.random.default_rng([problem.seed, 7])
    made = cuts(compared_keys(problem, keys, shape, rng), shape, rng)
    finals, call = [run.latents], arguments(model, config, problem)
    for part in chunks(made, at_once(model, config.batch)):
        cut_at = knocking(part, shape, run.steps, model.layers)
        cutting = partial(Cutting, unseen=cut_at)
        finals.append(model.run_directed(cutting, **joined([call] * len(part))).latents)
    latents = torch.cat(finals)
    clips = model.decode(latents) if problem.judged or problem.first else [None] * len(latents)
    rows: list[tuple[Row, np.ndarray | None]] = []
    for cut, latent, clip in zip([Cut("none", keys, "all", "all"), *made], latents, clips, strict=True):
        verdict = None if clip is None else judge(problem, clip)
        kept = dict.fromkeys(KEPT) if clip is None or problem.item is None else kept_columns(item_of(problem), clip)
        solved = solved_of(verdict)
        rows.append(({
            "kind": "knockout", "tokens": cut.tokens, "step_part": cut.step_part, "layer_part": cut.layer_part,
            "change": distance(latent, run.latents[0]),
            "solved": solved, **kept, **verdict_columns(verdict),
        }, clip))  # fmt: skip
    return rows
