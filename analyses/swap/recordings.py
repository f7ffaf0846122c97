"""What is kept of a pair's recordings, and where: of the run that receives the streams from which its swaps start, of those that
give the swapped sites, layers and steps."""

from __future__ import annotations

from collections.abc import Sequence

from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.driver.plan import at_once
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit import recorded
from cos_interp.analyses.kit.grid import EVERYWHERE, SELF, state_before
from cos_interp.analyses.kit.pairs import BESIDE, Recorder
from cos_interp.analyses.kit.recorded import Gives
from cos_interp.analyses.swap import SwapConfig
from cos_interp.analyses.swap.cells import VARIANTS, acting_steps, cells, layers_of, places
from cos_interp.interp.keeping import Keeping
from cos_interp.interp.model import HookedVideoPipeline

ORDER = ("corrupt", "clean", BESIDE, BESIDE)  # the recordings of a pair, at most


def kept_of(config: SwapConfig, model: HookedVideoPipeline) -> dict[str, Gives]:
    """What each side of a pair is recorded for. An update needs the states on either side of the block, of both runs."""
    layers, among = layers_of(model, config), ("*",) if config.layers is None else config.layers
    sites = {f"blocks.{layer}.{VARIANTS[v][0]}" for v in config.variants for layer in among}
    own = {c.hook for p in places(config) for c in cells(config, p, layers, [EVERYWHERE], []) if c.donor == SELF}
    updates = "delta" in config.variants
    if updates:
        own = sites = sites | {state_before(model, layer) for layer in layers}
    single = set(config.spans) == {"single"} and not updates
    steps = sorted({step for acting in acting_steps(config) for step in acting})
    gives = Gives(sorted(sites), steps, Keeping((), single=single))
    return {"corrupt": Gives(sorted(own), steps, Keeping(layers, single=single)), "clean": gives, BESIDE: gives}


def use_of(config: SwapConfig, outlook: Outlook, pairs: int = 1, order: Sequence[str] = ORDER) -> Use:
    """The recordings that are there at once, made for so many pairs, and the rows and pixels beside them."""
    kept, starts = kept_of(config, outlook.model), [steps[0] for steps in acting_steps(config)]
    at_a_time = recorded.foreseen(outlook, [kept[side] for side in order], starts, pairs)
    judged = not config.own or config.scored
    return Use("swaps", rows=config.batch, kept=at_a_time, decoded=at_once(outlook) if judged else 1)


def recorder(model: HookedVideoPipeline, config: SwapConfig, store: RunStore) -> Recorder:
    """Makes the recordings of a pair, each in its place and within its part of the memory."""
    return recorded.recorder(model, config, store, kept_of(config, model), ORDER, lambda outlook: use_of(config, outlook))
