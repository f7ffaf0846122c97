"""One recorded pair on which sets of components are tried: patches in, effects out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import Tensor

from cos_interp.analyses.circuit import SITES, CircuitConfig, Component
from cos_interp.analyses.circuit.components import Masks, drawn, everything_but, head_count, patches, spots
from cos_interp.analyses.kit.effects import effects
from cos_interp.analyses.kit.groups import of_pair
from cos_interp.analyses.kit.pair_file import Boxes
from cos_interp.analyses.kit.pairs import Pair, Recorder, Side
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patches import Patch
from cos_interp.interp.sweeping import Through, finished


@dataclass(frozen=True)
class Bench:
    """A pair: one side receives (its corrupt one), the other gives. ``masks``: disjoint token groups that cover the grid.
    ``recorder``: makes further runs; ``through``: keeps what is finished, see :func:`interp.sweeping.finished`."""

    model: HookedVideoPipeline
    target: Side
    donor: Side
    masks: Masks
    recorder: Recorder
    batch: int = 1
    through: Through | None = None

    @classmethod
    def of(
        cls, recorder: Recorder, config: CircuitConfig, pair: Pair, boxes: Boxes, through: Through | None = None
    ) -> Bench:  # fmt: skip
        masks = of_pair(recorder.model, pair.corrupt, pair.clean, boxes)
        return cls(recorder.model, pair.corrupt, pair.clean, masks, recorder, config.batch, through)

    @property
    def branches(self) -> tuple[str, ...]:
        return self.target.recording.run.branches

    @property
    def steps(self) -> tuple[int, ...]:
        """All denoising steps."""
        return tuple(range(self.target.recording.run.steps))

    @cached_property
    def heads(self) -> int:
        """Attention heads of a block."""
        return head_count(self.model)

    @property
    def reversed(self) -> Bench:
        """The pair the other way round: what gave receives, what received gives."""
        return replace(self, target=self.donor, donor=self.target)

    def rows(self, sets: Sequence[Sequence[Component]], donor: Side | None = None) -> list[list[Patch]]:
        """Each set as the patches of a row, of the pair's donor or another one."""
        given = (donor or self.donor).recording
        return [patches(one, self.masks, given, self.branches) for one in sets]

    def whole(self, part: str, layer: int, steps: tuple[int, ...] | None = None) -> list[Patch]:
        """A part of a block at all tokens, as the patches of a row."""
        site = f"blocks.{layer}.{SITES[part]}"
        return [Patch(site, steps or self.steps, self.donor.recording.donor(site), self.branches)]

    def without(self, chosen: Sequence[Component]) -> list[Patch]:
        """Everything but a set, as the patches of a row."""
        return everything_but(chosen, self.masks, self.donor.recording, self.branches, spots(self.model), self.heads)

    def random(self, chosen: Sequence[Component], draw: int) -> tuple[list[Component], Bench]:
        """An equally large random set, and the pair with the token groups of that set beside its own."""
        chance = np.random.default_rng(seed_for("random circuit", self.target.problem.seed, draw))
        made, masks = drawn(chosen, self.masks, spots(self.model), chance)
        return made, replace(self, masks={**self.masks, **masks})

    def latents(self, rows: Sequence[Sequence[Patch]]) -> list[Tensor]:
        """Final latents ``[1, channel, frame, row, col]`` of each row; a row without patches is the target's run itself."""
        out = [self.target.recording.run.latents] * len(rows)
        acting = [place for place, row in enumerate(rows) if row]
        asked = [rows[place] for place in acting]
        for place, latent in finished(self.model, self.target.recording, asked, self.batch, through=self.through):
            out[acting[place]] = latent.to(out[acting[place]])
        return out

    def effects(self, rows: Sequence[Sequence[Patch]]) -> list[float]:
        """How far each row's final latent moved: 0 as the target's run, 1 as the donor's along their difference."""
        out = [0.0] * len(rows)  # of a row without patches
        acting = [place for place, row in enumerate(rows) if row]
        asked = [rows[place] for place in acting]
        found = effects(self.model, self.target, self.donor, asked, self.batch, self.through)
        for place, effect in zip(acting, found, strict=True):
            out[place] = effect
        return out
