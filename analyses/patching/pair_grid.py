"""One pair: its recordings and those of its controls, and its grid step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from cos_interp.analyses.driver.drafts import Drafts
from cos_interp.analyses.driver.experiment import Unit
from cos_interp.analyses.driver.facts import PIXELS
from cos_interp.analyses.driver.statistics import distance
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.grid import Cell, Grid, Patched
from cos_interp.analyses.kit.pairs import Pair, Recorder, Side, other_noises, same_answer, stranger
from cos_interp.analyses.kit.problems import Problem
from cos_interp.analyses.kit.shown import shown
from cos_interp.analyses.patching import PairFacts, PatchingConfig, SideFacts, StepFacts
from cos_interp.analyses.patching.cells import cells, sites_of, token_groups, whole_state
from cos_interp.analyses.patching.pieces import Piece, span_of, steps_of
from cos_interp.analyses.patching.summary import strongest
from cos_interp.interp.views import AXES

TENSOR_AXES = {
    "latents": ("patch", *AXES["latent"][1:]), "shown": PIXELS,
    **dict.fromkeys(("corrupt", "clean"), AXES["latent"]), **dict.fromkeys(("corrupt_frames", "clean_frames"), PIXELS),
}  # fmt: skip


@dataclass(frozen=True)
class PairGrid:
    """The recordings of one pair, and its grid step by step."""

    config: PatchingConfig
    name: str
    pair: Pair
    grid: Grid
    steps: tuple[int, ...]
    only: Mapping[int, list[Cell]] | None = None  # cells of each step that are finished, where not all are

    @classmethod
    def of(cls, recorder: Recorder, config: PatchingConfig, piece: Piece, pair: Pair) -> PairGrid:
        """The grid of a recorded pair; records the donors of its controls."""
        sides = (pair.corrupt, pair.clean)
        target, donor = sides if config.direction == "denoising" else sides[::-1]
        beside = config.controls and config.method == "exact"  # a gradient map has the pair's own runs alone
        others = _others(recorder, config, piece, target, donor) if beside else {}
        grid = Grid(
            recorder.model, target, donor, others, token_groups(recorder.model, target, donor, piece.boxes),
            span=span_of(config, pair.one_noise), branches=None if config.branch == "both" else (config.branch,),
            noising=config.direction == "noising", batch=int(config.batch),
        )  # fmt: skip
        return cls(config, piece.name, pair, grid, steps_of(config, piece))

    def cells(self, step: int) -> list[Cell]:
        if self.only is not None:
            return self.only.get(step, [])
        model, config = self.grid.model, self.config
        groups = [group for group in self.grid.masks if config.tokens is None or group in config.tokens]
        flat = config.tokens is None and not self.pair.one_condition  # which every block reads again
        whole = whole_state(model, self.pair)
        made = cells(config, sites_of(config, model), step, model.layers, groups, whole, flat)
        return [cell for cell in made if cell.donor in self.grid.donors]

    @cached_property
    def shares(self) -> dict[str, float]:
        """Of each token group its share of the two runs' difference."""
        corrupt, clean = (side.recording.run.latents for side in (self.pair.corrupt, self.pair.clean))
        return {name: difference_share(corrupt, clean, mask) for name, mask in self.grid.masks.items()}

    def about(self) -> Unit:
        """What the report says and shows of the pair."""
        sides = {"corrupt": self.pair.corrupt, "clean": self.pair.clean}
        tensors = {name: side.recording.run.latents for name, side in sides.items()}
        tensors |= {f"{name}_frames": torch.from_numpy(side.recording.run.decode()[0]) for name, side in sides.items()}
        facts = PairFacts(
            axes={name: TENSOR_AXES[name] for name in tensors}, pair=self.name, kind=self.pair.kind, tried=self.pair.tried,
            sigmas=(*self.grid.target.recording.run.sigmas, 0.0), controls=tuple(sorted(self.grid.donors)),
            whole_state=whole_state(self.grid.model, self.pair),
            corrupt=_describe(self.pair.corrupt.problem), clean=_describe(self.pair.clean.problem),
        )  # fmt: skip
        return Unit([], tensors, facts)

    def at(self, step: int, drafts: Drafts | None = None) -> Unit:
        """All cells of one step: rows, final latents, and the count of block calls against the minimum. ``drafts``: keeps what is
        finished of them, for a run that is continued.

        Calls shared with a step before count there, also where a run that is continued must run them again.
        """
        asked = self.cells(step)
        if not asked:
            return Unit([], facts=StepFacts(block_calls=0, block_calls_minimum=0))
        self.grid.begin(step)
        before = self.grid.ran
        made: dict[Cell, tuple[Row, Patched]] = {}
        for patched in replace(self.grid, drafts=drafts).each(asked):  # of the videos one is kept, decoded again
            made[patched.cell] = self._row(patched), replace(patched, frames=None, latent=patched.latent.cpu())
        rows, found = [list(part) for part in zip(*(made[cell] for cell in asked), strict=True)]
        alone = self.grid.ran - before + (0 if drafts is None else drafts.taken)
        kept = strongest(pd.DataFrame(rows), self.grid.noising)
        tensors = {"latents": torch.cat([cell.latent for cell in found])}
        if kept is not None and self.grid.judged:
            tensors["shown"] = torch.from_numpy(self.grid.frames(found[kept].latent)[0])
        axes = {name: TENSOR_AXES[name] for name in tensors}
        least = self.grid.minimal_blocks(asked, [cell for k in self.steps if k < step for cell in self.cells(k)])
        had = sum(self.grid.minimal_blocks([cell]) for cell in asked) - least  # of cells of this step, or of one before
        counts = {"block_calls": alone - had, "block_calls_minimum": least}
        facts = StepFacts(axes=axes, shown=kept, rounding=self.grid.rounding(found), **counts)
        return Unit(rows, tensors, facts)

    def _row(self, found: Patched) -> Row:
        cell, target, donor = found.cell, self.grid.target, self.grid.donor
        own = theirs = None
        if found.frames is not None and target.problem.item is not None:
            own, theirs = shown(target.item, donor.item, found.frames), shown(donor.item, target.item, found.frames)
        return {
            "pair": self.name, "pair_kind": self.pair.kind, "span": self.grid.span, "donor": cell.donor, "site": cell.site,
            "step": cell.step, "layer": cell.layer, "head": cell.head, "group": cell.group, "frame": cell.frame,
            "sigma": found.sigma, "effect": found.effect, "share": self.shares[cell.group],
            "moved": distance(found.latent, target.recording.run.latents), "outcome": found.outcome,
            "target_shown": own, "donor_shown": theirs,
        }  # fmt: skip


def difference_share(corrupt: Tensor, clean: Tensor, tokens: Tensor | None) -> float:
    """The share of ``|clean - corrupt|^2`` (final latents) that lies in some tokens, bool ``[frame, row, col]``; 1 for None.

    It is the effect of writing those tokens' part of the clean latent over the corrupt one.
    """
    if tokens is None:
        return 1.0
    squared = (clean - corrupt).double().square().sum((0, 1))
    cells = interpolate(tokens[None, None].float(), tuple(squared.shape))[0, 0].bool()  # a token is several latent cells
    return float(squared[cells].sum() / squared.sum())


def _others(recorder: Recorder, config: PatchingConfig, piece: Piece, target: Side, donor: Side) -> dict[str, Side]:
    """The donors of the controls: something else, and the target's own problem from another noise."""
    if piece.sides is not None:
        made = {} if piece.stranger is None else {"random": recorder(piece.stranger)}
        return made | {"same_prompt": recorder(replace(target.problem, seed=other_noises(target.problem.seed)[0]))}
    prompts = [side.problem.call["prompt"] for side in (target, donor)]
    made = {"random": recorder(stranger(config.task_name, config, piece.index, unlike=prompts))}
    again = same_answer(recorder, target)
    return made if again is None else made | {"same_answer": again}


def _describe(problem: Problem) -> SideFacts:
    item = problem.item
    about: dict[str, Any] = {} if item is None else {"answer": item.answer, "item_seed": item.seed, "difficulty": item.difficulty}
    return SideFacts(prompt=problem.call["prompt"], seed=problem.seed, **about)
