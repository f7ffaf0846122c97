"""A vector and a subspace tried on one pair: rows of a replay, and what their videos show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.driver.statistics import projection
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.pairs import Side
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.analyses.kit.shown import read_sides
from cos_interp.analyses.steering.directions import exchanged, exchanged_as_far, foreign, random_basis, roles
from cos_interp.interp.editing import Edit
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patches import Patch
from cos_interp.interp.sweeping import Through, finished
from cos_interp.tasks import Item, get_task, grid, reader

Rows = dict[str, list[Patch]]


@dataclass(frozen=True)
class Place:
    """Where a pair is steered: a hook, its tokens ``[frame, row, col]``, and what each gets, 0 outside them."""

    site: str
    mask: Tensor
    weights: Tensor


def place_of(site: str, mask: Tensor, target: Side, donor: Side) -> Place:
    """The tokens of a mask, turned by what the answers do there; of a pair without items all get 1."""
    weights = mask.float()
    if target.problem.item is not None and donor.problem.item is not None:
        weights = weights * roles(target.item, donor.item)[None]
    return Place(site, mask, weights)


@dataclass(frozen=True)
class Trial:
    """One pair at its place, with the directions that were made of other pairs."""

    model: HookedVideoPipeline
    target: Side
    donor: Side
    place: Place
    vector: Tensor  # [d_model]
    basis: Tensor  # [d_model, rank]
    items: Tensor  # [pair, d_model], what the donors of these pairs have at the place

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(range(self.target.recording.run.steps))

    def added(self, vector: Tensor, weights: Tensor, steps: tuple[int, ...] | None = None) -> list[Patch]:
        """The vector, so many times at each token."""
        change = lambda act, step, branch: act + (weights[None, ..., None] * vector).to(act)
        return [Edit(self.place.site, steps or self.steps, change, self.target.recording.run.branches)]

    def exchange(self, basis: Tensor, like: Tensor | None = None, rest: bool = False) -> list[Patch]:
        """The donor's part along a basis, as far as along another one, or all but it."""
        given = self.donor.recording.donor(self.place.site)

        def change(act: Tensor, step: int, branch: str) -> Tensor:
            theirs = given(step, branch).to(act)
            if rest:
                return exchanged(theirs, act, basis)
            return exchanged(act, theirs, basis) if like is None else exchanged_as_far(act, theirs, basis, like)

        return [Edit(self.place.site, self.steps, change, self.target.recording.run.branches, self.place.mask)]

    def rows(self, doses: tuple[float, ...], ranks: tuple[int, ...]) -> Rows:
        """All ways, by name."""
        chance = torch.Generator().manual_seed(seed_for("random direction", self.target.problem.seed))
        drawn = random_basis(len(self.vector), max(ranks), chance)
        first, last = self.steps[: len(self.steps) // 2], self.steps[len(self.steps) // 2 :]
        weights, vector = self.place.weights, self.vector
        rows: Rows = {f"steer {dose:g}": self.added(dose * vector, weights) for dose in sorted({1.0, *doses})}
        for dose in (1.0, 2.0):
            rows[f"random direction {dose:g}"] = self.added(dose * vector.norm() * drawn[:, 0], weights)
        rows["wrong place 1"] = self.added(vector, elsewhere(weights, self.place.mask, chance))
        rows["two items' difference 1"] = self.added(foreign(self.items, vector.norm(), chance), weights)
        rows["first half of the steps"], rows["second half of the steps"] = (
            self.added(vector, weights, s) for s in (first, last)
        )
        for rank in (rank for rank in ranks if rank <= self.basis.shape[1]):
            rows[f"exchange {rank}"] = self.exchange(self.basis[:, :rank])
            rows[f"random exchange {rank}"] = self.exchange(drawn[:, :rank], self.basis[:, :rank])
            rows[f"all but {rank}"] = self.exchange(self.basis[:, :rank], rest=True)
        whole = self.donor.recording.donor(self.place.site)
        rows["donor"] = [Patch(self.place.site, self.steps, whole, self.target.recording.run.branches, self.place.mask)]
        return rows

    def latents(self, rows: Rows, batch: int, through: Through | None = None) -> dict[str, Tensor]:
        """Final latents ``[1, channel, frame, row, col]`` by name."""
        found = dict(finished(self.model, self.target.recording, list(rows.values()), batch, through=through))
        there = self.target.recording.run.latents.device
        return {name: found[place].to(there) for place, name in enumerate(rows)}

    def read(self, latent: Tensor) -> tuple[Row, np.ndarray | None]:
        """How far a latent moved; where somebody judges whose answer its video gives, and the video; of a task's pair what it
        shows and damages."""
        run = self.target.recording.run
        row: Row = {"effect": projection(latent, run.latents, self.donor.recording.run.latents)}
        if not (self.target.problem.judged and self.donor.problem.judged):
            return row, None
        frames = self.model.decode(run.shown(latent))[0]
        row |= read_sides(self.target.problem, self.donor.problem, frames)
        if self.target.problem.item is None or self.donor.problem.item is None:
            return row, frames
        target, donor, cells = self.target.item, self.donor.item, self.place.mask.any(0).numpy()
        unread = reader.read(frames) == grid.UNREADABLE
        return row | {
            "outcome_elsewhere": without_cells(target, donor, frames, cells),
            "damage": float(unread[:, ~cells].sum()), "damage_there": float(unread[:, cells].sum()),
        }, frames  # fmt: skip


def elsewhere(weights: Tensor, mask: Tensor, chance: torch.Generator) -> Tensor:
    """The same weights at as many tokens outside a mask, drawn at random."""
    given = weights[weights != 0]
    free = torch.nonzero(~mask.flatten()).flatten()
    if len(free) < len(given):
        free = torch.arange(mask.numel())
    out = torch.zeros(mask.numel())
    out[free[torch.randperm(len(free), generator=chance)[: len(given)]]] = given
    return out.view(mask.shape)


def without_cells(target: Item, donor: Item, frames: np.ndarray, cells: np.ndarray) -> str:
    """Whose answer a video gives where the steered cells ``[row, col]`` are left out of the verdict.

    They are taken as the donor's true video has them, then as the target's; ``undecided`` where another cell does not read.
    """
    read, task = reader.read(frames), get_task(target.task)
    if (read[:, ~cells] == grid.UNREADABLE).any():
        return "undecided"
    for name, item in (("donor", donor), ("target", target)):
        filled = read.copy()
        filled[:, cells] = item.cells[:, cells]
        verdict = task.judge(item, filled)
        if verdict.solved and verdict.answer in item.answers and np.array_equal(filled[0], item.cells[0]):
            return name
    return "other"
