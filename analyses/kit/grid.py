"""One engine for every grid of patches between recorded runs: sides -> cells -> patched runs -> readings.

A cell says which run gives (the donor), what (a site of a layer, in some tokens, one head) and at which step. The target's
run is finished with each cell's patch, and read in two ways: how far the final latent moved along the difference of the two
runs of the pair, and whose answer the video gives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from cos_interp.analyses.driver.drafts import Drafts
from cos_interp.analyses.driver.statistics import projection
from cos_interp.analyses.kit.pairs import Side
from cos_interp.analyses.kit.problems import whose
from cos_interp.interp.batch import chunks
from cos_interp.interp.errors import InterpError
from cos_interp.interp.families import decoding
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patches import Donor, Patch
from cos_interp.interp.patching import Minimum, Recording, check_made, hold_step, replay
from cos_interp.interp.sharing import Shared
from cos_interp.interp.sweeping import Span, spanned

EVERYWHERE = "all"  # the group of all tokens
SELF = "self"  # the target as its own donor: nothing may change
X_T = "hook_x_t"


@dataclass(frozen=True)
class Cell:
    """One point of a grid. ``site`` has no layer in its name; ``update``: the donor's update by the block, not its state."""

    donor: str
    site: str
    step: int
    layer: int | None = None
    head: int | None = None
    group: str = EVERYWHERE
    frame: int | None = None
    update: bool = False

    @property
    def hook(self) -> str:
        return self.site if self.layer is None else f"blocks.{self.layer}.{self.site}"

    @property
    def known(self) -> bool:
        """Whether its result is known beforehand: it is finished alone, because one row is exact to the bit."""
        return self.donor == SELF or (self.site == X_T and self.group == EVERYWHERE and self.frame is None)


@dataclass(frozen=True)
class Patched:
    """What one cell gave. ``effect``: 0 as the corrupt run, 1 as the clean one; ``outcome``, ``frames``: None without items."""

    cell: Cell
    sigma: float
    latent: Tensor  # [1, channel, frame, row, col]
    frames: np.ndarray | None  # uint8 [pixel frame, height, width, 3]
    effect: float
    outcome: str | None

    @property
    def flipped(self) -> bool | None:
        """Whether the video gives the donor's answer."""
        return None if self.outcome is None else self.outcome == "donor"


def state_before(model: HookedVideoPipeline, layer: int) -> str:
    """The hook of the video before a block: after the one before it, which a recording has anyway, if nothing lies between."""
    between = any(layer in engine.adapter.breaks(engine.module) for engine in model.engines.values())
    return f"blocks.{layer - 1}.hook_resid_post" if layer and not between else f"blocks.{layer}.hook_resid_pre"


def delta_donor(target: Recording, donor: Recording, layer: int, before: str) -> Donor:
    """The target's state before the block plus the donor's update by the block, ``[1, frame, row, col, d_model]``; ``before``:
    where both recordings have the state before it.

    Written as the target's own result plus the difference of the two updates, so that a run given its own update is
    exactly unchanged.
    """

    def update(recording: Recording, step: int, branch: str) -> Tensor:
        return recording.residual(layer, step, branch) - recording.cache[before, step, branch]

    def given(step: int, branch: str) -> Tensor:
        return target.residual(layer, step, branch) + (update(donor, step, branch) - update(target, step, branch))

    return given


def token_shape(model: HookedVideoPipeline, side: Side) -> tuple[int, int, int]:
    """Frames, rows and columns of the tokens of a side's run."""
    return model.token_grid(side.recording.run.latents).shape


def checked_alone(cells: Sequence[Cell], batch: int) -> Cell | None:
    """Of the cells of a step that share forwards the one that is also finished alone, by which their rounding is measured; None
    where none do."""
    together = [cell for cell in cells if not cell.known]
    if min(batch, len(together)) < 2:
        return None
    return next((cell for cell in together if cell.group != EVERYWHERE), together[0])


def _key(cells: Sequence[Cell], span: Span) -> str:
    """By which the drafts know what some cells gave."""
    return hashlib.sha256(f"{span} {list(cells)}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Grid:
    """The target of a pair and all that may be put into it.

    ``donor`` is the pair's other side, by which effects and outcomes are read; ``others`` are the donors of controls.
    ``masks``: token groups, bool ``[frame, row, col]``, None for all tokens. ``branches``: None for all of the run's.
    ``noising``: the target is the clean side, whose own effect is 1.
    """

    model: HookedVideoPipeline
    target: Side
    donor: Side
    others: dict[str, Side] = field(default_factory=dict)
    masks: dict[str, Tensor | None] = field(default_factory=lambda: {EVERYWHERE: None})
    donor_name: str = "clean"
    span: Span = "single"
    branches: tuple[str, ...] | None = None
    noising: bool = False
    batch: int = 1
    drafts: Drafts | None = None  # where what forwards give is kept until all of a unit is there
    shared: Shared = field(default_factory=Shared, repr=False)  # calls that several cells have in common
    _given: dict[tuple[str, str, int | None, bool], Donor] = field(default_factory=dict, repr=False)

    @property
    def donors(self) -> dict[str, Side]:
        """Who can give, by name."""
        return {self.donor_name: self.donor, SELF: self.target, **self.others}

    @property
    def judged(self) -> bool:
        """Whether there is a verifier to say whose answer a video gives."""
        return self.target.problem.judged and self.donor.problem.judged

    def patch(self, cell: Cell) -> Patch:
        """A cell as a patch of the target's run."""
        run = self.target.recording.run
        steps = spanned(cell.step, run.steps, self.span)
        heads = None if cell.head is None else (cell.head,)
        return Patch(cell.hook, steps, self._donor(cell), self.branches or run.branches, self._tokens(cell), heads)

    def _donor(self, cell: Cell) -> Donor:
        """What a cell is given, the same function for the same, by which shared calls are known."""
        key = (cell.donor, cell.site, cell.layer, cell.update)
        if key not in self._given:
            target, donor = self.target.recording, self.donors[cell.donor].recording
            if cell.update and cell.layer is not None:
                self._given[key] = delta_donor(target, donor, cell.layer, state_before(self.model, cell.layer))
            else:
                self._given[key] = donor.donor(cell.hook)
        return self._given[key]

    def _tokens(self, cell: Cell) -> Tensor | None:
        mask, latents = self.masks[cell.group], self.target.recording.run.latents
        if cell.frame is not None:
            only = torch.zeros(token_shape(self.model, self.target), dtype=torch.bool)
            if cell.frame >= len(only):
                raise InterpError(f"frame {cell.frame} was asked for; this run has latent frames 0 to {len(only) - 1}")
            only[cell.frame] = True
            mask = only if mask is None else mask & only
        if mask is None or cell.site != X_T:
            return mask
        return interpolate(mask[None, None].float(), tuple(latents.shape[2:]))[0, 0].bool()  # a token is several latent cells

    def begin(self, step: int) -> None:
        """Have in memory what patches of a step start from, and what is put there; where it was not kept, it runs again."""
        first = min(spanned(step, self.target.recording.run.steps, self.span))
        for side in self.donors.values():  # of which the target is one
            hold_step(self.model, side.recording, first)

    def latents(self, cells: Sequence[Cell]) -> Tensor:
        """Final latents ``[cells, channel, frame, row, col]``. All cells must start at one step."""
        made = {cell: row for part, rows in self._finished(cells) for cell, row in zip(part, rows.split(1), strict=True)}
        return torch.cat([made[cell] for cell in cells])

    def _finished(self, cells: Sequence[Cell]) -> Iterator[tuple[list[Cell], Tensor]]:
        """The cells that share forwards, with their final latents, as they are finished."""
        check_made(self.model, self.target.recording.run)
        alone, together = [[cell] for cell in cells if cell.known], [cell for cell in cells if not cell.known]
        for part in [*alone, *chunks(together, self.batch)]:
            make = partial(self._made, part)
            latents = make()[0] if self.drafts is None else self.drafts(_key(part, self.span), make)
            yield list(part), latents.to(self.target.recording.run.latents.device)

    def _made(self, part: Sequence[Cell]) -> tuple[Tensor, int]:
        """The latents of cells that share a forward, and the transformer blocks that these are."""
        before = self.ran
        latents = replay(self.model, self.target.recording, [self.patch(cell) for cell in part], self.shared, compared=True)
        return latents, self.ran - before

    @property
    def ran(self) -> int:
        """Transformer blocks until now, those that calls have in common as often as they are needed."""
        return self.model.block_calls + self.shared.saved

    def measure(self, cells: Sequence[Cell]) -> list[Patched]:
        """Finish and read every cell, in order; they must start at one step."""
        found = {patched.cell: patched for patched in self.each(cells)}
        return [found[cell] for cell in cells]

    def each(self, cells: Sequence[Cell]) -> Iterator[Patched]:
        """As :meth:`measure`, a cell at a time as it is finished: only the videos of those decoded together are in memory, and on
        a GPU only the latents of these."""
        waiting: list[tuple[Cell, Tensor]] = []
        for part, rows in self._finished(cells):
            waiting += zip(part, rows.split(1), strict=True)
            at_once = decoding.at_a_time(self.model.pipe, rows)
            while len(waiting) >= at_once:
                yield from self._read(waiting[:at_once])
                del waiting[:at_once]
        if waiting:
            yield from self._read(waiting)

    def _read(self, some: Sequence[tuple[Cell, Tensor]]) -> Iterator[Patched]:
        clips = self.frames(torch.cat([latent for _, latent in some])) if self.judged else [None] * len(some)
        for (cell, latent), clip in zip(some, clips, strict=True):
            yield self.read(cell, latent, clip)

    def frames(self, latents: Tensor) -> np.ndarray:
        """Videos of final latents, uint8 ``[cell, pixel frame, height, width, 3]``."""
        return self.model.decode(self.target.recording.run.shown(latents))

    def read(self, cell: Cell, latent: Tensor, frames: np.ndarray | None) -> Patched:
        ends = [side.recording.run for side in (self.target, self.donor)]
        corrupt, clean = ends[::-1] if self.noising else ends
        said = None if frames is None else whose(self.target.problem, self.donor.problem, frames)
        effect = projection(latent, corrupt.latents, clean.latents)
        return Patched(cell, ends[0].sigmas[cell.step], latent, frames, effect, said)

    def rounding(self, found: Sequence[Patched]) -> float | None:
        """``|together - alone| / |alone|`` of the final latent of the first cell that shared a forward; None where none did."""
        cell = checked_alone([patched.cell for patched in found], self.batch)
        if cell is None:
            return None
        one = next(patched for patched in found if patched.cell is cell)
        alone = replay(self.model, self.target.recording, self.patch(cell)).cpu().double()
        return float((one.latent.cpu() - alone).norm() / alone.norm())

    def minimal_blocks(self, cells: Sequence[Cell], before: Sequence[Cell] = ()) -> int:
        """Transformer blocks that the cells cannot avoid, where those ``before`` were finished in the same run."""
        least = Minimum(self.model, self.target.recording, set())
        count = lambda some: sum(least.blocks(self.patch(cell)) for cell in some)
        count(before)
        return count(cells)
