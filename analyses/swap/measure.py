"""Representation swap: the visual tokens of one run put into another, layer by layer (CoS section 5.2).

Both runs of a pair start from the same noise and differ in the prompt or in the first frame; the model solves both. The swap
is made in one layer, at one step (the paper's), from it on or at all steps; everything else is as it was. One step carries a
small share of the path and the prompt is read again at every other, so the three stand side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.facts import LeftOut
from cos_interp.analyses.driver.kept import Clip, keeps, kept
from cos_interp.analyses.driver.statistics import remaining_share
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit import pair_file
from cos_interp.analyses.kit.grid import EVERYWHERE, SELF, Cell, Grid, Patched, token_shape
from cos_interp.analyses.kit.groups import of_pair
from cos_interp.analyses.kit.pairs import NoPair, Recorder
from cos_interp.analyses.kit.problems import chosen_steps, fits, problems
from cos_interp.analyses.swap import Lasting, SwapConfig, SwapFacts, Swapped, label
from cos_interp.analyses.swap.sides import Piece, Sides, sides_of, unit_name
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.selecting import known_layers
from cos_interp.tasks import Item, get_task

# what is swapped: the site, and whether the donor's update by the block is put there or its state
VARIANTS = {
    "block": ("hook_resid_post", False), "delta": ("hook_resid_post", True), "attention": ("hook_attn_out", False),
    "cross": ("hook_cross_attn_out", False), "mlp": ("hook_mlp_out", False),
}  # fmt: skip
NAMES = {given: variant for variant, given in VARIANTS.items()}


def cell(donor: str, variant: str, layer: int, group: str, step: int) -> Cell:
    """One swap as a cell of a grid."""
    site, update = VARIANTS[variant]
    return Cell(donor, site, step, layer, group=group, update=update)


def variant_of(cell: Cell) -> str:
    return NAMES[cell.site, cell.update]


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


def main_variant(config: SwapConfig) -> Swapped:
    """What the rules are about: the block's output, as in the paper; without it the first that was asked for."""
    return "block" if "block" in config.variants else config.variants[0]


Place = tuple[int, Lasting]  # the first swapped step, and how long the swap lasts


def places(config: SwapConfig) -> list[Place]:
    """Where is swapped: every asked step alone, from every later one on, and at all steps."""
    single: list[Place] = [(step, "single") for step in steps_of(config)]
    later: list[Place] = [(step, "from") for step in steps_of(config) if step > 0]
    made: dict[Lasting, list[Place]] = {"single": single, "from": later, "all": [(0, "all")]}
    return [place for span in config.spans for place in made[span]]


def cells(config: SwapConfig, place: Place, layers: tuple[int, ...], groups: list[str], donors: list[str]) -> Iterator[Cell]:
    """The swaps at a place. What the rules read has the random item's tokens beside it in the same cell: the first variant, also
    in the groups at the first asked step and throughout, and the update (delta) at that step. Each variant once with the run
    itself as donor."""
    step, span = place
    first, main = main_variant(config), place == (steps_of(config)[0], "single")
    variants = config.variants if span == "single" else (first,)
    for variant in variants:
        whole = [EVERYWHERE] if not (main or span == "all") else [g for g in groups if g != "random" or variant == first]
        yield from (cell("pair", variant, layer, group, step) for group in whole for layer in layers)
        if "random item" in donors and (variant == first or (variant == "delta" and main)):
            beside = whole if variant == first else [EVERYWHERE]
            yield from (cell("random item", variant, layer, group, step) for group in beside for layer in layers)
    for donor in donors if main else []:
        if donor not in ("pair", "random item", SELF):
            yield from (cell(donor, first, layer, EVERYWHERE, step) for layer in layers)
    for at, variant in enumerate(variants):
        yield cell(SELF, variant, layers[(step + at) % len(layers)], EVERYWHERE, step)


# --- measuring -------------------------------------------------------------------------------------------------------


def recorder(model: HookedVideoPipeline, config: SwapConfig) -> Recorder:
    return Recorder(model, config, recorded_sites(config), recorded_steps(config))


def recorded_sites(config: SwapConfig) -> list[str]:
    """What is kept of every run beside its residual streams."""
    return sorted({f"blocks.*.{VARIANTS[v][0]}" for v in config.variants} | {"blocks.0.hook_resid_pre"})


def recorded_steps(config: SwapConfig) -> tuple[int, ...] | None:
    """The steps in which it is kept; None for all."""
    return steps_of(config) if set(config.spans) == {"single"} else None


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


def steps_of(config: SwapConfig) -> tuple[int, ...]:
    """The steps that were asked for; the paper's first one and the middle one by default."""
    return chosen_steps(config) if config.steps is not None else (0, config.num_inference_steps // 2)


def layers_of(model: HookedVideoPipeline, config: SwapConfig) -> tuple[int, ...]:
    """The swapped layers."""
    return config.layers if config.layers is not None else tuple(range(model.layers))


def check(config: SwapConfig, model: HookedVideoPipeline) -> None:
    if config.pair_file is None:
        fits(config, model)
    else:
        pair_file.check_model(Path(config.pair_file), config, model)
    known_layers(layers_of(model, config), model.layers)


def measure(model: HookedVideoPipeline, config: SwapConfig, piece: Piece) -> Unit:
    try:
        sides = sides_of(recorder(model, config), config, piece)
    except NoPair as error:
        return Unit([], facts=LeftOut(reason=str(error)))
    grid, layers = grid_of(model, config, sides), layers_of(model, config)
    sigmas = [*sides.target.recording.run.sigmas, 0.0]
    rows: list[Row] = []
    shown = _sides_shown(grid, piece[2])
    for step, span in places(config):
        lasting = grid if span == "single" else replace(grid, span="from")
        found = lasting.measure(list(cells(config, (step, span), layers, list(grid.masks), list(grid.donors))))
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


work = each_unit(measure, unit_name)
