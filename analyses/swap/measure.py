"""Representation swap: the visual tokens of one run put into another at one step, layer by layer (CoS section 5.2).

Both runs of a pair start from the same noise and differ in the prompt or in the first frame; the model solves both. The swap
is made in one layer of one step and the run is finished from there, everything else as it was.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.facts import PIXELS, LeftOut
from cos_interp.analyses.driver.statistics import remaining_share
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.grid import EVERYWHERE, SELF, Cell, Grid, Patched, token_shape
from cos_interp.analyses.kit.pairs import NoPair, Recorder
from cos_interp.analyses.kit.problems import chosen_steps, fits, problems
from cos_interp.analyses.swap import SwapConfig, SwapFacts
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
    if config.prompts is not None:
        count = len(problems(config))
        if count < 2:
            raise InterpError(f"a swap is between two prompts; {config.prompts} has {count}: give at least two lines")
        made: list[Piece] = [("prompts", "own", i) for i in range(min(config.items, count))]
    else:
        made = [(task, kind, i) for task in config.tasks for kind in config.pair_kinds for i in range(config.items)]
    return [(piece, [unit_name(piece)]) for piece in made]


# --- the swap --------------------------------------------------------------------------------------------------------


def object_mask(target: Item, donor: Item) -> Tensor:
    """Tokens of the objects that the question is about, in either scene, bool ``[frame, row, col]``."""
    groups = get_task(target.task).groups(target, donor)
    found = [groups[name] for name in get_task(target.task).objects if name in groups]
    return torch.from_numpy(np.any(found, 0))


def random_mask(mask: Tensor, seed: int) -> Tensor:
    """As many tokens in every frame as ``mask`` has, drawn from the others (all of these where there are fewer)."""
    rng = np.random.default_rng(seed)
    out = torch.zeros_like(mask)
    for frame in range(len(mask)):
        others = (~mask[frame]).flatten().nonzero()[:, 0].numpy()
        drawn = rng.permutation(others)[: int(mask[frame].sum())]
        out[frame].view(-1)[torch.from_numpy(drawn)] = True
    return out


def cells(config: SwapConfig, step: int, layers: tuple[int, ...], groups: list[str], donors: list[str]) -> Iterator[Cell]:
    """The swaps at one step: all variants on all and on the object's tokens; random tokens and the other donors for the
    first variant only; each variant once with the run itself as donor."""
    first = config.variants[0]
    for variant in config.variants:
        for group in groups:
            if group != "random" or variant == first:
                yield from (cell("pair", variant, layer, group, step) for layer in layers)
    for donor in donors:
        if donor not in ("pair", SELF):
            yield from (cell(donor, first, layer, EVERYWHERE, step) for layer in layers)
    for place, variant in enumerate(config.variants):
        yield cell(SELF, variant, layers[(step + place) % len(layers)], EVERYWHERE, step)


# --- measuring -------------------------------------------------------------------------------------------------------


def recorder(model: HookedVideoPipeline, config: SwapConfig) -> Recorder:
    sites = {f"blocks.*.{VARIANTS[v][0]}" for v in config.variants} | {"blocks.0.hook_resid_pre"}
    return Recorder(model, config, sorted(sites), steps_of(config))


def grid_of(model: HookedVideoPipeline, config: SwapConfig, sides: Sides) -> Grid:
    """All that can be swapped between the recordings of a pair."""
    others = {name: side for name, side in sides.donors.items() if name != "pair"}
    masks = _masks(config, sides, token_shape(model, sides.target))
    return Grid(model, sides.target, sides.donors["pair"], others, masks, donor_name="pair", batch=config.batch)


def row_of(sides: Sides, found: Patched, sigmas: list[float], layers: int) -> Row:
    """``sigmas`` of the run, with the final 0; ``layers`` of the model."""
    at = found.cell
    return {
        **sides.target.problem.facts, "problem": sides.name, "kind": sides.kind, "step": at.step, "sigma": found.sigma,
        "donor": at.donor, "variant": variant_of(at), "layer": at.layer, "group": at.group,
        "depth": None if at.layer is None else depth(at.layer, layers),
        "effect": found.effect, "relative": found.effect / remaining_share(sigmas, at.step),
        "outcome": found.outcome, "flipped": None if found.flipped is None else float(found.flipped),
    }  # fmt: skip


def depth(layer: int, layers: int) -> float:
    """Relative depth of a layer: 0 the first, towards 1 the last. Layer 20 of 40 is 0.5."""
    return layer / layers


def _masks(config: SwapConfig, sides: Sides, shape: tuple[int, ...]) -> dict[str, Tensor | None]:
    """Token sets by name. Only all tokens without a scene, or where the model's tokens are not the scene's cells."""
    target, donor = sides.target.problem, sides.donors["pair"].problem
    made: dict[str, Tensor | None] = {EVERYWHERE: None}
    if target.item is not None and donor.item is not None:
        mask = object_mask(target.item, donor.item)
        if mask.shape == shape:
            made |= {"object": mask, "random": random_mask(mask, target.seed)}
    return {EVERYWHERE: None} | {name: made[name] for name in config.tokens if name in made}


def steps_of(config: SwapConfig) -> tuple[int, ...]:
    """The steps that were asked for; the paper's first one and the middle one by default."""
    return chosen_steps(config) if config.steps is not None else (0, config.num_inference_steps // 2)


def _layers(model: HookedVideoPipeline, config: SwapConfig) -> tuple[int, ...]:
    return config.layers if config.layers is not None else tuple(range(model.layers))


def check(config: SwapConfig, model: HookedVideoPipeline) -> None:
    fits(config, model)
    known_layers(_layers(model, config), model.layers)


def measure(model: HookedVideoPipeline, config: SwapConfig, piece: Piece) -> Unit:
    try:
        sides = sides_of(recorder(model, config), config, piece)
    except NoPair as error:
        return Unit([], facts=LeftOut(reason=str(error)))
    grid, layers = grid_of(model, config, sides), _layers(model, config)
    sigmas = [*sides.target.recording.run.sigmas, 0.0]
    rows: list[Row] = []
    frames: dict[str, Tensor] = {}
    for step in steps_of(config):
        found = grid.measure(list(cells(config, step, layers, list(grid.masks), list(grid.donors))))
        rows += [row_of(sides, patched, sigmas, model.layers) for patched in found]
        if piece[2] == 0 and step == steps_of(config)[0]:
            middle = min(layers, key=lambda at: abs(depth(at, model.layers) - 0.5))
            shown = cell("pair", config.variants[0], middle, EVERYWHERE, step)
            frames = _examples(grid, next(patched.latent for patched in found if patched.cell == shown))
    facts = SwapFacts(
        axes=dict.fromkeys(frames, PIXELS), sigmas=tuple(sigmas[:-1]), prompt=sides.target.problem.call["prompt"],
        donor_prompt=sides.donors["pair"].problem.call["prompt"], tried=sides.tried,
    )  # fmt: skip
    return Unit(rows, frames, facts)


def _examples(grid: Grid, swapped: Tensor) -> dict[str, Tensor]:
    """Videos of the target, the donor, and a swap."""
    runs = {"target": grid.target.recording.run, "donor": grid.donor.recording.run}
    latents = {name: run.latents for name, run in runs.items()} | {"swapped": swapped}
    return {name: torch.from_numpy(grid.model.decode(runs["target"].shown(made))[0]) for name, made in latents.items()}


work = each_unit(measure, unit_name)
