"""Attribution patching: what each of many patches would do to a metric, to first order, by one sweep back for all of them.

``(donor - activation) . gradient`` in the target's run (Nanda 2023, "Attribution patching"; Syed et al. 2310.10348), over
denoising steps as well. It is right for a small enough difference, and says nothing of how small that is: hold it against exact
replays.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cos_interp.interp.cache_plan import CachePlan
from cos_interp.interp.errors import InterpError
from cos_interp.interp.gradient.target import Metric
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patches import Patch, resolved
from cos_interp.interp.patching import Recording, check_made
from cos_interp.interp.views import axes_of


def attribute(model: HookedVideoPipeline, target: Recording, patches: Sequence[Patch], metric: Metric) -> list[float]:
    """The first-order change of a metric by each patch alone, in the order of the patches.

    ``metric`` gets the final latents ``[1, channel, frame, row, col]`` and gives one number by torch operations. A patch in
    several steps or branches has the sum over these. A patch of the target's own activations has exactly 0. Costs one sweep back
    over the target's run (see ``model.gradients``), however many patches there are. InterpError as of
    :func:`~cos_interp.interp.patching.replay` and of ``model.gradients``; for edits, which have no donor.
    """
    check_made(model, target.run)
    asked = [resolved(model, target.run, patch) for patch in patches]
    if edits := [patch for patch in asked if type(patch) is not Patch]:
        raise InterpError(f"{edits[0]} is an edit, and attribution is of donors: give a Patch")
    if not asked:
        return []
    changes = [0.0] * len(asked)
    at: dict[tuple[str, int, str | None], list[int]] = {}
    for place, patch in enumerate(asked):
        for step in patch.steps:
            for branch in (None,) if patch.site == "hook_x_t" else patch.branches:
                at.setdefault((patch.site, step, branch), []).append(place)

    def add(name: str, kind: str, step: int, branch: str | None, act: Tensor, gradient: Tensor) -> None:
        for place in at.get((name, step, branch), ()):
            given = asked[place].apply(act, step, branch or "cond", axes_of(kind, act))
            changes[place] += float(((given - act).double() * gradient.double()).sum())

    names, steps = tuple(dict.fromkeys(patch.site for patch in asked)), frozenset(step for _, step, _ in at)
    plan = CachePlan(names, steps, None, None, None, 0)
    with torch.no_grad():
        model.sweep_back(target.run, metric, None, plan, add)
    return changes
