"""What is put from one run of a pair into the other, and what of them is kept for it."""

from __future__ import annotations

from collections.abc import Sequence

from cos_interp.analyses.commitment import CommitmentConfig
from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.driver.plan import at_once
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit import recorded
from cos_interp.analyses.kit.grid import X_T, Cell
from cos_interp.analyses.kit.pairs import Recorder
from cos_interp.analyses.kit.problems import spread
from cos_interp.analyses.kit.recorded import Gives
from cos_interp.interp.keeping import Keeping
from cos_interp.interp.model import HookedVideoPipeline

STEPS = 5  # of a run, in which something is put there
ORDER = ("corrupt", "clean")


def transplants(steps: int, layers: int, groups: Sequence[str]) -> list[list[Cell]]:
    """The cells of every step: x_t of each group, and three layers' states."""
    return [
        [Cell("clean", X_T, step, group=group) for group in groups]
        + [Cell("clean", "hook_resid_post", step, layer) for layer in states(layers)]
        for step in spread(steps, STEPS)
    ]


def states(layers: int) -> list[int]:
    """The blocks whose states are put there."""
    return sorted({0, layers // 2, layers - 1})


def kept_of(config: CommitmentConfig, model: HookedVideoPipeline) -> dict[str, Gives]:
    """What each side of a pair is recorded for: all acts in single steps, so that one step at a time is enough."""
    layers, steps = states(model.layers), list(spread(config.num_inference_steps, STEPS))
    given = [f"blocks.{layer}.hook_resid_post" for layer in layers]
    return {"corrupt": Gives((), steps, Keeping(layers, single=True)), "clean": Gives(given, steps, Keeping((), single=True))}


def use_of(config: CommitmentConfig, outlook: Outlook, pairs: int = 1) -> Use:
    """The recordings of a pair, made for so many of them, and the pixels beside them."""
    kept = kept_of(config, outlook.model)
    sides = [kept[side] for side in ORDER]
    at_a_time = recorded.foreseen(outlook, sides, spread(config.num_inference_steps, STEPS), pairs)
    return Use("transplants", kept=at_a_time, decoded=at_once(outlook))


def recorder(model: HookedVideoPipeline, config: CommitmentConfig, store: RunStore) -> Recorder:
    """Makes the recordings of a pair, each in its place and within its part of the memory."""
    return recorded.recorder(model, config, store, kept_of(config, model), ORDER, lambda outlook: use_of(config, outlook))
