"""The place, the directions made of some pairs, and their test on others."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from cos_interp.analyses.driver.experiment import Unit, from_others
from cos_interp.analyses.driver.facts import LeftOut
from cos_interp.analyses.driver.kept import Clip, keeps, kept
from cos_interp.analyses.driver.statistics import projection
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.kit.groups import REST, of_pair
from cos_interp.analyses.kit.pairs import NoPair, Pair, Recorder, Side
from cos_interp.analyses.kit.split_pairs import FIRST_UNSEEN, counts, fits, pair_of
from cos_interp.analyses.steering import PLACED, VECTOR, CheckFacts, SteeringConfig, VectorFacts, label
from cos_interp.analyses.steering.directions import mean_direction, subspace
from cos_interp.analyses.steering.tried import Trial, place_of
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patches import Patch
from cos_interp.interp.sweeping import finished

SMALL = 0.1  # a group of more than this share of the tokens is no place where others do
GAIN = 0.1  # what a second group must add


@dataclass(frozen=True)
class Piece:
    """``place``: the map on a pair from which the place is chosen; ``check``: the test on an unseen one."""

    stage: Literal["place", "vector", "check"]
    index: int = 0

    @property
    def name(self) -> str:
        return VECTOR if self.stage == VECTOR else f"{self.stage}-{self.index:04d}"


def pieces(config: SteeringConfig) -> list[tuple[Piece, list[str]]]:
    seen, unseen = counts(config)
    made = [Piece("place", n) for n in range(min(PLACED, seen))]
    made += [Piece(VECTOR), *(Piece("check", FIRST_UNSEEN + n) for n in range(unseen))]
    return [(piece, [piece.name]) for piece in made]


def needs(config: SteeringConfig, piece: Piece) -> list[str]:
    """The directions need their place, the tests need the directions."""
    if piece.stage == VECTOR:
        return [other.name for other, _ in pieces(config) if other.stage == "place"]
    return [VECTOR] if piece.stage == "check" else []


def check(config: SteeringConfig, model: HookedVideoPipeline) -> None:
    """InterpError for pairs or a layer that a model does not have."""
    fits(config, config, model)
    if config.layer is not None and config.layer >= model.layers:
        raise InterpError(f"--layer {config.layer} was asked for; {model.name} has layers 0 to {model.layers - 1}")


def _made(model: HookedVideoPipeline, config: SteeringConfig, store: RunStore, piece: Piece) -> Unit:
    try:
        return _unit(Recorder(model, config), config, store, piece)
    except NoPair as error:
        return Unit([], facts=LeftOut(reason=str(error)))


def _unit(recorder: Recorder, config: SteeringConfig, store: RunStore, piece: Piece) -> Unit:
    if piece.stage == "place":
        return Unit([{"pair": piece.name, **row} for row in placed(recorder, config, piece.index)])
    if piece.stage == VECTOR:
        maps = pd.DataFrame([row for unit in needs(config, piece) for row in store.finished(unit)[0]])
        return learnt(recorder, config, *place(config, maps))
    facts = store.finished(VECTOR)[1]
    if not isinstance(facts, VectorFacts):
        raise NoPair(facts.reason if isinstance(facts, LeftOut) else "there is no vector")
    return tested(recorder, config, piece, facts, store.tensors(VECTOR))


# --- the place ---------------------------------------------------------------------------------------------------------


def _pair(recorder: Recorder, config: SteeringConfig, index: int) -> tuple[Pair, dict[str, Tensor]]:
    pair, boxes = pair_of(recorder, config, index)
    return pair, of_pair(recorder.model, pair.corrupt, pair.clean, boxes)


def placed(recorder: Recorder, config: SteeringConfig, index: int) -> list[Row]:
    """The effect of the donor's residual stream after each block at each group, and at two small groups together."""
    pair, masks = _pair(recorder, config, index)
    target, donor = pair.corrupt, pair.clean
    chosen = {" + ".join(some): torch.stack([masks[name] for name in some]).any(0) for some in groupings(masks)}
    run, named, patches = target.recording.run, [], []
    for layer in range(recorder.model.layers) if config.layer is None else [config.layer]:
        site = f"blocks.{layer}.hook_resid_post"
        given = donor.recording.donor(site)
        named += [{"table": "place", "layer": layer, "group": name} for name in chosen]
        patches += [Patch(site, range(run.steps), given, run.branches, None if m.all() else m) for m in chosen.values()]
    ends = (run.latents, donor.recording.run.latents)
    found = finished(recorder.model, target.recording, patches, config.batch)
    return [{**named[place], "effect": projection(latent, *ends)} for place, latent in found]


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


# --- the directions ----------------------------------------------------------------------------------------------------


def _mask(masks: dict[str, Tensor], tokens: Sequence[str]) -> Tensor:
    there = [masks[name] for name in tokens if name in masks]
    if not there:
        raise NoPair(f"the pair has no tokens of {', '.join(tokens)}; it has {', '.join(masks)}")
    return torch.stack(there).any(0)


def learnt(recorder: Recorder, config: SteeringConfig, layer: int, tokens: tuple[str, ...]) -> Unit:
    """Mean and subspace of the signed differences at the place, over pairs, steps and tokens."""
    site, kept = f"blocks.{layer}.hook_resid_post", []
    for index in range(counts(config)[0]):
        try:
            pair, masks = _pair(recorder, config, index)
            mask = _mask(masks, tokens)
        except NoPair:
            continue
        kept.append(differences(pair.corrupt, pair.clean, site, mask))
    if len(kept) < 2:
        raise NoPair(f"{len(kept)} of {counts(config)[0]} pairs could be used: directions are made of two at least")
    found = torch.cat(kept)
    vector, (basis, shares) = mean_direction(found), subspace(found, max(config.ranks))
    facts = VectorFacts(
        axes={"vector": ("d_model",), "basis": ("d_model", "rank")}, layer=layer, tokens=tokens, pairs=len(kept),
        norm=float(vector.norm()), shares=tuple(map(float, shares)),
    )  # fmt: skip
    return Unit([], {"vector": vector, "basis": basis.contiguous()}, facts)


def differences(target: Side, donor: Side, site: str, mask: Tensor) -> Tensor:
    """Donor minus target ``[n, d_model]`` in all steps and the conditional branch, at the tokens that the answers change, turned
    so that all point to the donor's answer."""
    weights = place_of(site, mask, target, donor).weights
    at = weights != 0
    sides = [
        [side.recording.cache[site, step, "cond"][0][at] for step in range(side.recording.run.steps)] for side in (target, donor)
    ]
    own, theirs = (torch.stack(side).float() for side in sides)
    return ((theirs - own) * weights[at][:, None]).flatten(0, 1)


# --- the test ----------------------------------------------------------------------------------------------------------


def tested(recorder: Recorder, config: SteeringConfig, piece: Piece, facts: VectorFacts, tensors: dict[str, Tensor]) -> Unit:
    """All ways on one unseen pair; of the first ones some videos are kept."""
    pair, masks = _pair(recorder, config, piece.index)
    target, donor = pair.corrupt, pair.clean
    where = place_of(f"blocks.{facts.layer}.hook_resid_post", _mask(masks, facts.tokens), target, donor)
    if not (where.weights != 0).any():
        raise NoPair("the two answers change none of the steered tokens")
    trial = Trial(recorder.model, target, donor, where, tensors["vector"], tensors["basis"])
    rows: list[Row] = []
    shown: list[Clip] = []
    for way, latent in trial.latents(trial.rows(config.doses, config.ranks), config.batch).items():
        row, frames = trial.read(latent)
        name, _, size = way.rpartition(" ")
        numbered = size.replace("-", "").replace(".", "").isdigit()
        about = {"way": name if numbered else way, "size": float(size) if numbered else None}
        if frames is not None and keeps(piece.index - FIRST_UNSEEN, frames.nbytes) and (called := label(about)) is not None:
            shown.append((called, len(rows), frames))
        rows.append({"table": "check", "pair": piece.name, **about, **row})
    ends = [(name, None, side.recording.run.decode()[0]) for name, side in (("own", target), ("donor", donor)) if shown]
    tensors, kept_of = kept([*ends, *shown])
    prompts = (target.problem.call["prompt"], donor.problem.call["prompt"])
    steered = int((where.weights != 0).sum())
    return Unit(rows, tensors, CheckFacts(prompts=prompts, tokens=steered, tried=pair.tried, **kept_of))


work = from_others(_made)
__all__ = ["check", "needs", "pieces", "work"]
