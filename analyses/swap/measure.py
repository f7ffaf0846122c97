"""Representation swap: the visual tokens of one run put into another, layer by layer (CoS section 5.2).

Both runs of a pair start from the same noise and differ in the prompt or in the first frame; the model solves both. The swap
is made in one layer, at one step (the paper's), from it on or at all steps; everything else is as it was. One step carries a
small share of the path and the prompt is read again at every other, so the three stand side by side.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.driver.experiment import Unit, from_others
from cos_interp.analyses.driver.facts import LeftOut
from cos_interp.analyses.driver.kept import Clip, keeps, kept
from cos_interp.analyses.driver.statistics import remaining_share
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.kit import pair_file
from cos_interp.analyses.kit.grid import EVERYWHERE, Grid, Patched, token_shape
from cos_interp.analyses.kit.groups import of_pair
from cos_interp.analyses.kit.pairs import NoPair
from cos_interp.analyses.kit.problems import fits, problems
from cos_interp.analyses.swap import Lasting, SwapConfig, SwapFacts, label
from cos_interp.analyses.swap.cells import cells, layers_of, main_variant, places, steps_of, variant_of
from cos_interp.analyses.swap.recordings import recorder
from cos_interp.analyses.swap.sides import Piece, Sides, sides_of, unit_name
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.selecting import known_layers
from cos_interp.tasks import Item, get_task


def pieces(config: SwapConfig) -> list[tuple[Piece, list[str]]]:
    """A piece a pair. Own prompts: each is the target once, the next one of the file is its donor."""
    steps_of(config)
    made: list[Piece]
    if config.pair_file is not None:
        made = [("pairs", "own", i) for i in range(min(config.items, len(pair_file.boxes(Path(config.pair_file)))))]
    elif config.prompts is not None:
        count = len(problems(config))
        if count < 2:
            raise InterpError(f"a swap is between two prompts; {config.prompts} has {count}: give at least two lines")
        made = [("prompts", "own", i) for i in range(min(config.items, count))]
    else:
        made = [(task, kind, i) for task in config.task_names for kind in config.pair_kinds for i in range(config.items)]
    return [(piece, [unit_name(piece)]) for piece in made]


# --- the swap --------------------------------------------------------------------------------------------------------


def object_mask(target: Item, donor: Item) -> Tensor:
    """Tokens of the objects that the question is about, in either scene, bool ``[frame, row, col]``."""
    groups = get_task(target.task).groups(target, donor)
    found = [groups[name] for name in get_task(target.task).objects if name in groups]
    return torch.from_numpy(np.any(found, 0))


def boxed(model: HookedVideoPipeline, sides: Sides) -> Tensor:
    """Tokens in any box that the pair's line draws, bool ``[frame, row, col]``."""
    groups = of_pair(model, sides.target, sides.donors["pair"], sides.boxes)
    return torch.stack([groups[name] for name in sides.boxes]).any(0)


def random_mask(mask: Tensor, seed: int) -> Tensor:
    """As many tokens in every frame as ``mask`` has, drawn from the others (all of these where there are fewer)."""
    rng = np.random.default_rng(seed)
    out = torch.zeros_like(mask)
    for frame in range(len(mask)):
        others = (~mask[frame]).flatten().nonzero()[:, 0].numpy()
        drawn = rng.permutation(others)[: int(mask[frame].sum())]
        out[frame].view(-1)[torch.from_numpy(drawn)] = True
    return out


# --- measuring -------------------------------------------------------------------------------------------------------


def grid_of(model: HookedVideoPipeline, config: SwapConfig, sides: Sides) -> Grid:
    """All that can be swapped between the recordings of a pair."""
    others = {name: side for name, side in sides.donors.items() if name != "pair"}
    masks = _masks(model, config, sides)
    return Grid(model, sides.target, sides.donors["pair"], others, masks, donor_name="pair", batch=config.batch)


def row_of(sides: Sides, found: Patched, sigmas: list[float], layers: int, span: Lasting) -> Row:
    """``sigmas`` of the run, with the final 0; ``layers`` of the model. ``carried``: the share of the path that is
    left which the swapped steps make, all of it where they are the rest; ``relative``: the effect over that."""
    at = found.cell
    carried = remaining_share(sigmas, at.step) if span == "single" else 1.0
    return {
        **sides.target.problem.facts, "problem": sides.name, "kind": sides.kind, "step": at.step, "span": span,
        "sigma": found.sigma, "donor": at.donor, "variant": variant_of(at), "layer": at.layer, "group": at.group,
        "depth": None if at.layer is None else depth(at.layer, layers),
        "effect": found.effect, "carried": carried, "relative": found.effect / carried,
        "outcome": found.outcome, "flipped": None if found.flipped is None else float(found.flipped),
    }  # fmt: skip


def depth(layer: int, layers: int) -> float:
    """Relative depth of a layer: 0 the first, towards 1 the last. Layer 20 of 40 is 0.5."""
    return layer / layers


def _masks(model: HookedVideoPipeline, config: SwapConfig, sides: Sides) -> dict[str, Tensor | None]:
    """Token sets by name. Only all tokens without a scene and boxes, or where the model's tokens are not the scene's cells."""
    target, donor = sides.target.problem, sides.donors["pair"].problem
    made: dict[str, Tensor | None] = {EVERYWHERE: None}
    mask = boxed(model, sides) if sides.boxes else None
    if target.item is not None and donor.item is not None:
        mask = object_mask(target.item, donor.item)
    if mask is not None and mask.shape == token_shape(model, sides.target):
        made |= {"object": mask, "random": random_mask(mask, target.seed)}
    return {EVERYWHERE: None} | {name: made[name] for name in config.tokens if name in made}


def check(config: SwapConfig, model: HookedVideoPipeline) -> None:
    if config.pair_file is None:
        fits(config, model)
    else:
        pair_file.check_model(Path(config.pair_file), config, model)
    known_layers(layers_of(model, config), model.layers)


def measure(model: HookedVideoPipeline, config: SwapConfig, store: RunStore, piece: Piece) -> Unit:
    try:
        sides = sides_of(recorder(model, config, store), config, piece)
    except NoPair as error:
        return Unit([], facts=LeftOut(reason=str(error)))
    grid = replace(grid_of(model, config, sides), drafts=store.drafts(unit_name(piece)))
    layers = layers_of(model, config)
    sigmas = [*sides.target.recording.run.sigmas, 0.0]
    rows: list[Row] = []
    shown = _sides_shown(grid, piece[2])
    for step, span in places(config):
        lasting = grid if span == "single" else replace(grid, span="from")
        asked = list(cells(config, (step, span), layers, list(grid.masks), list(grid.donors)))
        each = {one.cell: replace(one, frames=None, latent=one.latent.cpu()) for one in lasting.each(asked)}
        found = [each[cell] for cell in asked]
        made = [row_of(sides, patched, sigmas, model.layers, span) for patched in found]
        if shown and (step, span) in ((steps_of(config)[0], "single"), (0, "all")):
            own = main_variant(config), middle_of(layers, model.layers)
            shown += [
                (name, len(rows) + k, _decoded(grid, found[k].latent))
                for k, row in enumerate(made) if (row["variant"], row["layer"]) == own and (name := label(row)) is not None
            ]  # fmt: skip
        rows += made
    tensors, about = kept(shown)
    facts = SwapFacts(
        sigmas=tuple(sigmas[:-1]), prompt=sides.target.problem.call["prompt"],
        donor_prompt=sides.donors["pair"].problem.call["prompt"], tried=sides.tried, **about,
    )  # fmt: skip
    return Unit(rows, tensors, facts)


def middle_of(layers: tuple[int, ...], count: int) -> int:
    """The swapped layer that is nearest to the middle of a model of ``count`` layers: whose videos are shown."""
    return min(layers, key=lambda at: abs(depth(at, count) - 0.5))


def _sides_shown(grid: Grid, index: int) -> list[Clip]:
    """The videos of the run that receives and of the one that gives; none of a pair whose clips are not kept."""
    own = _decoded(grid, grid.target.recording.run.latents)
    if not keeps(index, own.nbytes):
        return []
    return [("receives", None, own), ("gives", None, _decoded(grid, grid.donor.recording.run.latents))]


def _decoded(grid: Grid, latent: Tensor) -> np.ndarray:
    return grid.model.decode(grid.target.recording.run.shown(latent))[0]


work = from_others(measure, unit_name)
