"""Where a pair is steered: the block and the tokens at which the donor's residual stream does most, and their latent frames."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.effects import effects
from cos_interp.analyses.kit.groups import REST, of_pair
from cos_interp.analyses.kit.pairs import NoPair, Pair, Recorder, Side
from cos_interp.analyses.kit.split_pairs import pair_of
from cos_interp.analyses.steering import SteeringConfig
from cos_interp.interp.errors import InterpError
from cos_interp.interp.patches import Patch
from cos_interp.interp.sweeping import Through

SMALL = 0.1  # a group of more than this share of the tokens is no place where others do
GAIN = 0.1  # what a second group must add, and all frames to one of them


def grouped(recorder: Recorder, config: SteeringConfig, index: int) -> tuple[Pair, dict[str, Tensor]]:
    """A pair, and the groups of tokens that it has."""
    pair, boxes = pair_of(recorder, config, index)
    return pair, of_pair(recorder.model, pair.corrupt, pair.clean, boxes)


def placed(recorder: Recorder, config: SteeringConfig, index: int, through: Through | None = None) -> list[Row]:
    """The effect of the donor's residual stream after each block at each group, and at two small groups together."""
    pair, masks = grouped(recorder, config, index)
    target, donor = pair.corrupt, pair.clean
    chosen = {" + ".join(some): torch.stack([masks[name] for name in some]).any(0) for some in groupings(masks)}
    run, named, patches = target.recording.run, [], []
    for layer in range(recorder.model.layers) if config.layer is None else [config.layer]:
        site = f"blocks.{layer}.hook_resid_post"
        given = donor.recording.donor(site)
        named += [{"table": "place", "layer": layer, "group": name} for name in chosen]
        patches += [Patch(site, range(run.steps), given, run.branches, None if m.all() else m) for m in chosen.values()]
    return _effects(recorder, config, target, donor, list(zip(named, patches, strict=True)), through)


def _effects(
    recorder: Recorder, config: SteeringConfig, target: Side, donor: Side, asked: Sequence[tuple[Row, Patch]],
    through: Through | None,
) -> list[Row]:  # fmt: skip
    """The effect of each patch of the target's run, beside what is said of it."""
    found = effects(recorder.model, target, donor, [[patch] for _, patch in asked], config.batch, through)
    return [{**row, "effect": effect} for (row, _), effect in zip(asked, found, strict=True)]


def groupings(masks: dict[str, Tensor]) -> list[tuple[str, ...]]:
    """The groups that may be a place, alone and two together: the small ones, or all named ones where none is small."""
    named = {name: mask for name, mask in masks.items() if name != REST} or masks
    small = [name for name, mask in named.items() if mask.float().mean() <= SMALL] or list(named)
    return [(name,) for name in small] + list(itertools.combinations(small, 2))


def place(config: SteeringConfig, maps: pd.DataFrame) -> tuple[int, tuple[str, ...]]:
    """Layer and groups: those that were asked for, else with the largest mean effect, two groups only where both are needed."""
    if config.layer is not None and config.tokens is not None:
        return config.layer, config.tokens
    if maps.empty:
        raise NoPair("no pair was there to choose a place on")
    means = maps.groupby(["layer", "group"]).effect.agg(["mean", "count"])
    means = means[means["count"] >= means["count"].max() / 2]["mean"].sort_values(ascending=False, kind="stable")
    if config.tokens is not None:
        wanted = " + ".join(config.tokens)
        means = means[means.index.get_level_values("group") == wanted]
        if means.empty:
            raise InterpError(
                f"--tokens {','.join(config.tokens)}: give --layer too, or one or two of the small groups of the pairs"
            )
    alone = means[~means.index.get_level_values("group").str.contains(" + ", regex=False)]
    best = means if alone.empty or means.iloc[0] > alone.iloc[0] + GAIN else alone
    layer, groups = best.index[0]
    return int(layer), tuple(groups.split(" + "))


def by_frame(
    recorder: Recorder, config: SteeringConfig, target: Side, donor: Side, site: str, mask: Tensor, through: Through | None = None
) -> list[Row]:  # fmt: skip
    """The effect of the donor's residual stream at a mask ``[frame, row, col]``, and at each of its latent frames alone."""
    run, given = target.recording.run, donor.recording.donor(site)
    frames = [None, *(n for n in range(len(mask)) if mask[n].any())]
    at = lambda n: Patch(site, range(run.steps), given, run.branches, mask if n is None else in_frames(mask, [n]))
    return _effects(recorder, config, target, donor, [({"table": "frame", "frame": n}, at(n)) for n in frames], through)


def frames_of(maps: pd.DataFrame) -> tuple[int, ...]:
    """The latent frame that alone does as much as all, within ``GAIN``, the strongest of several; () for all of them."""
    means = maps.groupby("frame", dropna=False).effect.mean()
    alone = means[means.index.notna()]
    whole = float(means[means.index.isna()].iloc[0])
    return (int(alone.idxmax()),) if len(alone) > 1 and alone.max() >= whole - GAIN else ()


def in_frames(mask: Tensor, frames: Sequence[int]) -> Tensor:
    """A mask ``[frame, row, col]`` in some latent frames alone; () is all of them."""
    kept = torch.zeros(len(mask), dtype=torch.bool)
    kept[[n for n in frames if n < len(mask)]] = True
    return mask & kept[:, None, None] if frames else mask
