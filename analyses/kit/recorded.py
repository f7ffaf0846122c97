"""What is kept of the recordings that an experiment has at once, and where: as its plan has it, within what was stated.

A run that receives keeps the residual streams from which its patched runs start, a run that gives the asked sites, steps and
tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

from cos_interp.analyses.driver.outlook import Kept, Outlook, Use, recording_budget
from cos_interp.analyses.driver.placed import Placed
from cos_interp.analyses.driver.plan import planned
from cos_interp.analyses.driver.planning import kind_of_device, limits_of
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.pairs import Recorder, SideKept
from cos_interp.interp.address import BRANCHES
from cos_interp.interp.errors import InterpError
from cos_interp.interp.keeping import Keeping
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.places import Disk, HostMemory, Place

SMALL = 1 << 30  # bytes of all recordings of a machine, of which nobody asks where they are: the plan of a place takes a second


@dataclass(frozen=True)
class Gives:
    """What a side is recorded for: the sites that it gives and the steps in which anything of it is kept (None: all)."""

    sites: Sequence[str]
    steps: Sequence[int] | None = None
    keeping: Keeping = field(default_factory=Keeping)


def bytes_of(outlook: Outlook, gives: Gives) -> tuple[int, int]:
    """Of one recording: of all its steps, and at least, with one step at a time of what passes."""
    streams = gives.keeping.streams(outlook.model.hook_names)
    sites = set(outlook.model.matching(list(gives.sites)) if gives.sites else ())
    passing = sites | streams if gives.keeping.single else streams - sites
    mask = gives.keeping.tokens
    share = 1.0 if mask is None else float(mask.sum()) / mask.numel()
    steps = list(range(outlook.steps) if gives.steps is None else gives.steps)
    of = lambda names, some: -(-outlook.kept(sorted(names), some) * share // 1) if names else 0
    return int(of(sites | streams, steps)), int(of(passing, steps[:1]) + of(sites - passing, steps))


def foreseen(outlook: Outlook, sides: Sequence[Gives], starts: Sequence[int], times: int = 1) -> Kept:
    """The recordings that are there at once, the largest place in the plan. ``starts``: the steps in which patched runs start, in
    their order; ``times``: how often in all that is gone through."""
    sizes = [bytes_of(outlook, gives) for gives in sides]
    passing = sum(lean < whole for whole, lean in sizes)
    calls = sum(call.step == step for step, _ in groupby(starts) for call in outlook.run().calls)
    whole, lean = zip(*sizes, strict=True)
    return Kept(whole, lean, times * passing * calls * outlook.model.layers)


def recorder(
    model: HookedVideoPipeline, config: AnalysisConfig, store: RunStore, kept: Mapping[str, Gives], order: Sequence[str],
    use: Callable[[Outlook], Use],
) -> Recorder:  # fmt: skip
    """Makes recordings, each in its place and within its part of the memory. ``kept``: by side what is kept of it; ``order``: the
    sides of all that are there at once, as the ``kept`` of ``use`` has them; ``use``: what else is there meanwhile."""
    chosen = _chosen(model, config, store, [kept[side] for side in order], use)
    places = {side: order.index(side) for side in kept if side in order}
    asked = {
        side: SideKept(kept[side].sites, kept[side].steps, kept[side].keeping, chosen.most(at)) for side, at in places.items()
    }

    def place() -> Place | None:
        if chosen.place == "disk":
            return Disk(store.scratch())
        return HostMemory() if chosen.place == "host" and kind_of_device(config) != "cpu" else None

    return Recorder(model, config, kept=asked, place=place)


def _chosen(
    model: HookedVideoPipeline, config: AnalysisConfig, store: RunStore, sides: Sequence[Gives], use: Callable[[Outlook], Use]
) -> Placed:  # fmt: skip
    """As the plan of the run has it; where they are small, or nothing tells how the loop runs, where they are computed."""
    near, device = Placed("device", (recording_budget(config),), 0), kind_of_device(config)
    workers = store.processes if device == "cpu" else 1
    try:
        outlook = Outlook.of(model, config)
        if not config.limits() and workers * len(sides) * max(map(partial(_at_most, outlook), sides)) <= SMALL:
            return near
        plan = planned(lambda _, given: [use(given)], outlook, device, limits_of(config, device, store.folder), workers)
    except InterpError:
        return near
    assert plan.placed is not None
    return plan.placed


def _at_most(outlook: Outlook, gives: Gives) -> int:
    """Bytes of a recording with all branches and steps, without asking how the loop runs."""
    model = outlook.model
    names = gives.keeping.streams(model.hook_names).union(model.matching(list(gives.sites)) if gives.sites else ())
    return outlook.steps * len(BRANCHES) * sum(map(outlook.shape.activation, names))
