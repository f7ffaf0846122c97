"""Representation swap: the visual tokens of one run put into another at one step, layer by layer (CoS section 5.2).

Both runs of a pair start from the same noise and differ in the prompt or in the first frame; the model solves both. The swap
is made in one layer of one step and the run is finished from there, everything else as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.statistics import projection, remaining_share
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.pairs import NoPair
from cos_interp.analyses.kit.problems import Problem, arguments, chosen_steps, problems
from cos_interp.analyses.swap import SwapConfig
from cos_interp.analyses.swap.sides import Piece, Sides, sides_of, unit_name
from cos_interp.interp.address import known_layers
from cos_interp.interp.batch import chunks
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patching import Donor, Patch, Recording, record, replay
from cos_interp.tasks import Item, get_task
from cos_interp.tasks.base import outcome

SITES = {
    "block": "hook_resid_post", "delta": "hook_resid_post", "attention": "hook_attn_out", "cross": "hook_cross_attn_out",
    "mlp": "hook_mlp_out",
}  # fmt: skip
# token groups of each task that are the objects the question is about, in the target's and in the donor's scene
FRAME_AXES = ["pixel_frame", "y", "x", "rgb"]


@dataclass(frozen=True)
class Cell:
    """One swap."""

    donor: str
    variant: str
    layer: int
    group: str
    step: int

    @property
    def site(self) -> str:
        return f"blocks.{self.layer}.{SITES[self.variant]}"


def pieces(config: SwapConfig) -> list[tuple[Piece, list[str]]]:
    """A piece a pair. Own prompts: each is the target once, the next one of the file is its donor."""
    steps_of(config)
    if config.prompts is not None:
        count = len(problems(config))
        if count < 2:
            raise InterpError(f"a swap is between two prompts; {config.prompts} has {count}: give at least two lines")
        made = [("prompts", "own", i) for i in range(min(config.items, count))]
    else:
        made = [(task, kind, i) for task in config.tasks for kind in config.pair_kinds for i in range(config.items)]
    return [(piece, [unit_name(piece)]) for piece in made]


# --- the swap --------------------------------------------------------------------------------------------------------


def delta_donor(target: Recording, donor: Recording, layer: int) -> Donor:
    """The target's state before the block plus the donor's update by the block, ``[1, frame, row, col, d_model]``.

    Written as the target's own result plus the difference of the two updates, so that a run given its own update is
    exactly unchanged.
    """

    def update(recording: Recording, step: int, branch: str) -> Tensor:
        before = f"blocks.{layer - 1}.hook_resid_post" if layer else "blocks.0.hook_resid_pre"
        return recording.residual(layer, step, branch) - recording.cache[before, step, branch]

    def given(step: int, branch: str) -> Tensor:
        return target.residual(layer, step, branch) + (update(donor, step, branch) - update(target, step, branch))

    return given


def patch_of(cell: Cell, target: Recording, donor: Recording, mask: Tensor | None) -> Patch:
    """The swap as a patch of all guidance branches. ``mask``: bool ``[frame, row, col]``; None for all tokens."""
    given = delta_donor(target, donor, cell.layer) if cell.variant == "delta" else donor.donor(cell.site)
    return Patch(cell.site, (cell.step,), given, target.run.branches, mask)


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
                yield from (Cell("pair", variant, layer, group, step) for layer in layers)
    for donor in donors:
        if donor not in ("pair", "self"):
            yield from (Cell(donor, first, layer, "all", step) for layer in layers)
    for place, variant in enumerate(config.variants):
        yield Cell("self", variant, layers[(step + place) % len(layers)], "all", step)


# --- measuring -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """The recordings of a pair, of which every swap is made."""

    model: HookedVideoPipeline
    config: SwapConfig
    sides: Sides
    target: Recording
    donors: dict[str, Recording]
    masks: dict[str, Tensor | None]

    @classmethod
    def prepare(cls, model: HookedVideoPipeline, config: SwapConfig, sides: Sides) -> Work:
        sites = {f"blocks.*.{SITES[v]}" for v in config.variants} | {"blocks.0.hook_resid_pre"}

        def recorded(problem: Problem) -> Recording:
            return record(model, sorted(sites), steps=list(steps_of(config)), **arguments(model, config, problem))

        target = recorded(sides.target)
        donors = {name: recorded(problem) for name, problem in sides.donors.items()} | {"self": target}
        grid = target.residual(0, steps_of(config)[0], target.run.branches[0]).shape[1:4]
        return cls(model, config, sides, target, donors, _masks(config, sides, grid))

    def latents(self, grid: list[Cell]) -> Tensor:
        """Final latents, a row a cell. Cells of the run itself are finished one by one: these must be exact."""
        made: dict[Cell, Tensor] = {}
        own = [[cell] for cell in grid if cell.donor == "self"]
        rest = [cell for cell in grid if cell.donor != "self"]
        for part in [*own, *chunks(rest, self.config.batch)]:
            patches = [patch_of(c, self.target, self.donors[c.donor], self.masks[c.group]) for c in part]
            made |= dict(zip(part, replay(self.model, self.target, patches).split(1), strict=True))
        return torch.cat([made[cell] for cell in grid])

    def rows(self, step: int) -> tuple[list[Row], dict[Cell, Tensor]]:
        grid = list(cells(self.config, step, _layers(self.model, self.config), list(self.masks), list(self.donors)))
        latents = self.latents(grid)
        clips = np.concatenate([self.model.decode(part) for part in latents.split(16)]) if self.judged else [None] * len(grid)
        rows = [self._row(cell, latents[i : i + 1], clips[i]) for i, cell in enumerate(grid)]
        return rows, {cell: latents[i : i + 1] for i, cell in enumerate(grid)}

    @property
    def judged(self) -> bool:
        """Whether there is a verifier to say whose answer a video gives."""
        return self.sides.target.item is not None

    def _row(self, cell: Cell, latent: Tensor, frames: np.ndarray | None) -> Row:
        target, donor = self.sides.target, self.sides.donors["pair"]
        whose = None if frames is None else outcome(get_task(target.task), target.item, donor.item, frames)
        effect = projection(latent, self.target.run.latents, self.donors["pair"].run.latents)
        share = remaining_share([*self.target.run.sigmas, 0.0], cell.step)
        return {
            **target.facts, "problem": self.sides.name, "kind": self.sides.kind, "step": cell.step,
            "sigma": self.target.run.sigmas[cell.step], "donor": cell.donor, "variant": cell.variant, "layer": cell.layer,
            "depth": depth(cell.layer, self.model.layers), "group": cell.group,
            "effect": effect, "relative": effect / share,
            "outcome": whose, "flipped": None if whose is None else float(whose == "donor"),
        }  # fmt: skip


def depth(layer: int, layers: int) -> float:
    """Relative depth of a layer: 0 the first, towards 1 the last. Layer 20 of 40 is 0.5."""
    return layer / layers


def _masks(config: SwapConfig, sides: Sides, grid: torch.Size) -> dict[str, Tensor | None]:
    """Token sets by name. Only all tokens without a scene, or where the model's tokens are not the scene's cells."""
    target, donor = sides.target.item, sides.donors["pair"].item
    made: dict[str, Tensor | None] = {"all": None}
    if target is not None and donor is not None:
        mask = object_mask(target, donor)
        if mask.shape == grid:
            made |= {"object": mask, "random": random_mask(mask, sides.target.seed)}
    return {"all": None} | {name: made[name] for name in config.tokens if name in made}


def steps_of(config: SwapConfig) -> tuple[int, ...]:
    """The steps that were asked for; the paper's first one and the middle one by default."""
    return chosen_steps(config) if config.steps is not None else (0, config.num_inference_steps // 2)


def _layers(model: HookedVideoPipeline, config: SwapConfig) -> tuple[int, ...]:
    return config.layers if config.layers is not None else tuple(range(model.layers))


def check(config: SwapConfig, model: HookedVideoPipeline) -> None:
    known_layers(_layers(model, config), model.layers)


def measure(model: HookedVideoPipeline, config: SwapConfig, piece: Piece) -> Unit:
    try:
        sides = sides_of(model, config, piece)
    except NoPair as error:
        return Unit([], {}, {"axes": {}, "missing": str(error)})
    work = Work.prepare(model, config, sides)
    rows: list[Row] = []
    frames: dict[str, Tensor] = {}
    for step in steps_of(config):
        found, latents = work.rows(step)
        rows += found
        if piece[2] == 0 and step == steps_of(config)[0]:
            frames = _examples(work, latents)
    facts = {
        "axes": dict.fromkeys(frames, FRAME_AXES), "sigmas": [*work.target.run.sigmas, 0.0], "layers": model.layers,
        "tried": sides.tried, "prompt": sides.target.call["prompt"], "donor_prompt": sides.donors["pair"].call["prompt"],
    }  # fmt: skip
    return Unit(rows, frames, facts)


def _examples(work: Work, latents: dict[Cell, Tensor]) -> dict[str, Tensor]:
    """Videos of the target, the donor, and the swap of the middle layer."""
    wanted = _layers(work.model, work.config)
    layer = min(wanted, key=lambda at: abs(depth(at, work.model.layers) - 0.5))
    swapped = latents[Cell("pair", work.config.variants[0], layer, "all", steps_of(work.config)[0])]
    shown = {"target": work.target.run.latents, "donor": work.donors["pair"].run.latents, "swapped": swapped}
    return {name: torch.from_numpy(work.model.decode(latent)[0]) for name, latent in shown.items()}


work = each_unit(measure, unit_name)
