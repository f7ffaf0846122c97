"""What a steering run takes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cos_interp.analyses.driver.kept import keeps
from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit.foreseen import SOME, Nothing, blocks_of_rows, of_side, recordings, split_masks
from cos_interp.analyses.kit.split_pairs import counts
from cos_interp.analyses.steering import PLACED, SHOWN, SteeringConfig
from cos_interp.analyses.steering.measure import pieces
from cos_interp.analyses.steering.placing import groupings
from cos_interp.analyses.steering.recordings import of_directions, use_of
from cos_interp.interp.patches import Patch

CLIPS = 2 + len(SHOWN)  # of a tested pair: both runs, and some ways
BESIDE = 5  # tested rows beside doses, ranks and the halves of the steps: random directions, a wrong place, items, donor
KINDS = 3  # rows of a rank: exchanged, along random directions, all but it
FEWER = "fewer ranks where the differences of the pairs have fewer, and later blocks alone where the place lies late"


def foresee(config: SteeringConfig, outlook: Outlook) -> list[Use]:
    """The map on the first pairs, the pairs of the directions, and all ways on the unseen ones."""
    asked = [piece for piece, _ in pieces(config)]
    placed = [piece.index for piece in asked if piece.stage == "place"]
    (seen, unseen), sought = counts(config), config.solved and config.pair_file is None
    count = len(placed) + seen + unseen
    use = use_of(config, outlook, config.layer, compared=config.layer is not None, pairs=count)
    assert use.kept is not None
    runs = [of_side(outlook, config, place, side) for place in [*placed, *range(seen + unseen)] for side in (0, 1)]
    recorded = recordings(outlook, runs, use.kept, pairs=count if sought else 0)
    receiving = lambda place: of_side(outlook, config, place, 1)
    maps = {place: _map(config, receiving(place), split_masks(outlook, config, place)) for place in placed}
    tested = sum(blocks_of_rows(own, _tested(config, own)) for own in map(receiving, range(seen, seen + unseen)))
    framed = sum(blocks_of_rows(own, _framed(config, own)) for own in map(receiving, range(min(PLACED, seen))))
    decoded = int(config.pair_file is None or config.scored)
    kept = sum(keeps(index, outlook.shape.clip_bytes) for index in range(unseen))
    return [
        recorded,
        Use(f"map of places, {sum(map(len, maps.values())):,} rows",
            blocks=sum(blocks_of_rows(receiving(place), rows) for place, rows in maps.items()), rows=config.batch),
        Use("map of frames, at most", blocks=0 if config.frames else framed, rows=config.batch, bound=True, more=FEWER),
        Use("directions", held=of_directions(outlook)),
        Use("tests on unseen pairs", blocks=tested, rows=config.batch, decoded=decoded,
            disk=CLIPS * kept * outlook.shape.clip_bytes * decoded, bound=True, more=FEWER),
    ]  # fmt: skip


def _map(config: SteeringConfig, outlook: Outlook, masks: Mapping[str, Tensor]) -> list[Patch]:
    """The patches of a pair's map."""
    run = outlook.run()
    wholes = [bool(torch.stack([masks[name] for name in some]).any(0).all()) for some in groupings(dict(masks))]
    return [
        Patch(f"blocks.{layer}.hook_resid_post", range(run.steps), Nothing(), run.branches, None if whole else SOME)
        for layer in (range(outlook.model.layers) if config.layer is None else [config.layer]) for whole in wholes
    ]  # fmt: skip


def _framed(config: SteeringConfig, outlook: Outlook) -> list[Patch]:
    """The patches of a pair's latent frames, each alone and all together."""
    run, site = outlook.run(), f"blocks.{config.layer or 0}.hook_resid_post"
    return [Patch(site, range(run.steps), Nothing(), run.branches, SOME)] * (1 + outlook.shape.grid.shape[0])


def _tested(config: SteeringConfig, outlook: Outlook) -> list[Patch]:
    """All ways on a pair, each as a patch of some tokens after the first block where no other was asked for."""
    run, half = outlook.run(), outlook.steps // 2
    whole = len({1.0, *config.doses}) + BESIDE + KINDS * len(config.ranks)
    site = f"blocks.{config.layer or 0}.hook_resid_post"
    spans = [range(run.steps)] * whole + [range(half), range(half, run.steps)]
    return [Patch(site, span, Nothing(), run.branches, SOME) for span in spans]
