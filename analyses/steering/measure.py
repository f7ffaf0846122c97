"""The place, the directions made of some pairs, and their test on others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from cos_interp.analyses.driver.experiment import Unit, from_others
from cos_interp.analyses.driver.facts import LeftOut
from cos_interp.analyses.driver.kept import Clip, keeps, kept
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.kit.pairs import NoPair, Recorder, Side
from cos_interp.analyses.kit.split_pairs import FIRST_UNSEEN, counts, fits, has_groups
from cos_interp.analyses.steering import PLACED, VECTOR, CheckFacts, SteeringConfig, VectorFacts, label
from cos_interp.analyses.steering.directions import Moments, mean_direction, subspace
from cos_interp.analyses.steering.placing import by_frame, frames_of, grouped, in_frames, place, placed
from cos_interp.analyses.steering.recordings import recorder
from cos_interp.analyses.steering.tried import Trial, place_of
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.sweeping import Through


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
    if config.tokens is not None:
        has_groups(config, config.tokens, f"--tokens {','.join(config.tokens)}")


def _made(model: HookedVideoPipeline, config: SteeringConfig, store: RunStore, piece: Piece) -> Unit:
    try:
        return _unit(partial(recorder, model, config, store), config, store, piece)
    except NoPair as error:
        return Unit([], facts=LeftOut(reason=str(error)))


def _unit(made: Callable[..., Recorder], config: SteeringConfig, store: RunStore, piece: Piece) -> Unit:
    through = store.drafts(piece.name).in_order
    if piece.stage == "place":
        return Unit([{"pair": piece.name, **row} for row in placed(made(config.layer), config, piece.index, through)])
    if piece.stage == VECTOR:
        maps = pd.DataFrame([row for unit in needs(config, piece) for row in store.finished(unit)[0]])
        layer, tokens = place(config, maps)
        return learnt(made(layer, compared=True), config, layer, tokens, through)
    facts = store.finished(VECTOR)[1]
    if not isinstance(facts, VectorFacts):
        raise NoPair(facts.reason if isinstance(facts, LeftOut) else "there is no vector")
    return tested(made(facts.layer), config, piece, facts, store.tensors(VECTOR), through)


# --- the directions ----------------------------------------------------------------------------------------------------


def _mask(masks: dict[str, Tensor], tokens: Sequence[str], frames: Sequence[int] = ()) -> Tensor:
    there = [masks[name] for name in tokens if name in masks]
    if not there:
        raise NoPair(f"the pair has no tokens of {', '.join(tokens)}; it has {', '.join(masks)}")
    mask = in_frames(torch.stack(there).any(0), frames)
    if not mask.any():
        asked = f"the latent frames {', '.join(map(str, frames))}, of 0 to {len(mask) - 1}"
        raise NoPair(f"the tokens of {', '.join(tokens)} are in none of {asked}")
    return mask


def _gathered(
    record: Recorder, config: SteeringConfig, site: str, tokens: tuple[str, ...], through: Through | None
) -> tuple[Gathered, list[Row]]:  # fmt: skip
    """What the two runs of all pairs have at the tokens, and the maps of latent frames of the first ones. NoPair for fewer than
    two pairs; InterpError where no pair has tokens that were asked for."""
    kept, maps, why, absent = Gathered(), list[Row](), dict[str, None](), dict[str, None]()
    for index in range(counts(config)[0]):
        reasons = why
        try:
            pair, masks = grouped(record, config, index)
            reasons = absent
            mask = _mask(masks, tokens, config.frames or ())
        except NoPair as error:
            reasons[str(error)] = None  # once
            continue
        if config.frames is None and len(kept.donors) < PLACED:
            found = by_frame(record, config, pair.corrupt, pair.clean, site, mask, through)
            maps += [{"pair": f"pair-{index:04d}", **row} for row in found]
        kept.add(pair.corrupt, pair.clean, site, mask)
    if absent and not kept.donors and (config.tokens or config.frames):
        raise InterpError(f"{'; '.join(absent)}: give other --tokens or --frames")
    if len(kept.donors) < 2:
        said = f" ({'; '.join([*why, *absent])})" if why or absent else ""
        raise NoPair(f"{len(kept.donors)} of {counts(config)[0]} pairs could be used{said}: directions are made of two at least")
    return kept, maps


def learnt(
    record: Recorder, config: SteeringConfig, layer: int, tokens: tuple[str, ...], through: Through | None = None
) -> Unit:  # fmt: skip
    """Latent frames of the place, on the first pairs; then mean and subspace of the signed differences there, over pairs, steps
    and tokens."""
    kept, maps = _gathered(record, config, f"blocks.{layer}.hook_resid_post", tokens, through)
    frames = config.frames if config.frames is not None else frames_of(pd.DataFrame(maps))
    every, items = kept.within(frames)
    if not every.count:
        raise NoPair("the two answers change none of the steered tokens")
    if not every.products.any():
        raise NoPair("the two runs of the pairs have the same at these tokens: there is no direction from one to the other")
    vector, (basis, shares) = mean_direction(every), subspace(every, max(config.ranks))
    facts = VectorFacts(
        axes={"vector": ("d_model",), "basis": ("d_model", "rank"), "items": ("pair", "d_model")},
        layer=layer, tokens=tokens, frames=frames, pairs=len(items), norm=float(vector.norm()), shares=tuple(map(float, shares)),
    )  # fmt: skip
    return Unit(maps, {"vector": vector, "basis": basis.contiguous(), "items": torch.stack(items)}, facts)


@dataclass
class Gathered:
    """Of all pairs, in the conditional branch, over steps and the tokens that the answers change, by latent frame.

    ``turned``: donor minus target, turned so that all point to the donor's answer. ``donors``: of each pair, how many vectors the
    donor has there and their sum ``[d_model]``.
    """

    turned: dict[int, Moments] = field(default_factory=dict)
    donors: list[dict[int, tuple[int, Tensor]]] = field(default_factory=list)

    def add(self, target: Side, donor: Side, site: str, mask: Tensor) -> None:
        """What the two runs of a pair have at the tokens of a mask that the answers change, one step after the other."""
        weights = place_of(site, mask, target, donor).weights
        at = weights != 0
        turn, frames, found = weights[at][:, None], at.nonzero()[:, 0], dict[int, tuple[int, Tensor]]()
        for step in range(target.recording.run.steps):
            own, theirs = (side.recording.cache[site, step, "cond"][0][at].float() for side in (target, donor))
            for frame in frames.unique().tolist():
                here = frames == frame
                self.turned.setdefault(frame, Moments(own.shape[-1])).add((theirs - own)[here] * turn[here])
                count, total = found.get(frame, (0, torch.zeros(own.shape[-1])))
                found[frame] = (count + int(here.sum()), total + theirs[here].sum(0))
        self.donors.append(found)

    def within(self, frames: Sequence[int]) -> tuple[Moments, list[Tensor]]:
        """In some latent frames, () for all: the differences of all pairs, and of each pair with tokens there the mean of what
        the donor has."""
        every = Moments.joined([one for frame, one in self.turned.items() if frame in frames or not frames])
        seen = [[held for frame, held in one.items() if frame in frames or not frames] for one in self.donors]
        return every, [torch.stack([t for _, t in one]).sum(0) / sum(count for count, _ in one) for one in seen if one]


# --- the test ----------------------------------------------------------------------------------------------------------


def tested(
    record: Recorder, config: SteeringConfig, piece: Piece, facts: VectorFacts, tensors: dict[str, Tensor],
    through: Through | None = None,
) -> Unit:  # fmt: skip
    """All ways on one unseen pair; of the first ones some videos are kept."""
    pair, masks = grouped(record, config, piece.index)
    target, donor = pair.corrupt, pair.clean
    where = place_of(f"blocks.{facts.layer}.hook_resid_post", _mask(masks, facts.tokens, facts.frames), target, donor)
    if not (where.weights != 0).any():
        raise NoPair("the two answers change none of the steered tokens")
    trial = Trial(record.model, target, donor, where, tensors["vector"], tensors["basis"], tensors["items"])
    rows: list[Row] = []
    shown: list[Clip] = []
    for way, latent in trial.latents(trial.rows(config.doses, config.ranks), config.batch, through).items():
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
