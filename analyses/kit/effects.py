"""How far patched runs of a recorded pair move, forward by forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cos_interp.analyses.driver.statistics import projection
from cos_interp.analyses.kit.pairs import Side
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patches import Row
from cos_interp.interp.sweeping import Through, finished


def effects(
    model: HookedVideoPipeline, target: Side, donor: Side, rows: Sequence[Row], batch: int, through: Through | None = None
) -> list[float]:  # fmt: skip
    """Of each row how far its final latent moved: 0 as the target's run, 1 as the donor's along their difference.

    ``through``: keeps the effects of each forward as they are found, see :func:`~cos_interp.interp.sweeping.finished`.
    """
    ends = [side.recording.run.latents for side in (target, donor)]

    def read(part: Sequence[int], make: Callable[[], Tensor]) -> Tensor:
        found = lambda: torch.tensor([projection(latent, *ends) for latent in make().split(1)], dtype=torch.float64)
        return found() if through is None else through(part, found)

    places = dict(finished(model, target.recording, rows, batch, through=read))
    return [float(places[place]) for place in range(len(rows))]
