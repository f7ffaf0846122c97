"""What is kept of the recordings of a stage, and where: of the runs that receive the streams from which patched runs start, of
those that give what the components write."""

from __future__ import annotations

from cos_interp.analyses.circuit import HEADS, SITES, CircuitConfig
from cos_interp.analyses.circuit.components import has_heads, spots
from cos_interp.analyses.circuit.pieces import SEARCH, Stage
from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit import recorded
from cos_interp.analyses.kit.pairs import BESIDE, Recorder
from cos_interp.analyses.kit.recorded import Gives
from cos_interp.analyses.kit.split_pairs import counts
from cos_interp.interp.keeping import Keeping
from cos_interp.interp.model import HookedVideoPipeline

STREAM = "hook_resid_post"  # of which a closer look has a map


def kept_of(model: HookedVideoPipeline, stage: Stage) -> dict[str, Gives]:
    """What each side is recorded for. Paths hold what the receiving run itself writes, tests put it into the other run; whole
    parts have no heads."""
    parts = list(dict.fromkeys(part for part, _ in spots(model)))
    written = [f"blocks.*.{SITES[part]}" for part in parts]
    heads = [f"blocks.*.{HEADS[part]}" for part in parts if has_heads(model, part)] if stage != "coarse" else []
    given = [*written, *heads, *([f"blocks.*.{STREAM}"] if stage == "fine" else [])]
    receives = Gives({"paths": written, "check": given}.get(stage, ()))
    gives = Gives(given, None, Keeping(()))
    return {"corrupt": receives, "clean": receives if stage == "check" else gives, BESIDE: gives}


def order_of(config: CircuitConfig, stage: Stage) -> list[str]:
    """The recordings that are there at once: the search has all of its pairs, a test a foreign run."""
    pairs = counts(config, not config.check)[0] if stage == SEARCH else 1
    return [*["corrupt", "clean"] * pairs, *([BESIDE] if stage == "check" and config.pair_file is None else [])]


def use_of(config: CircuitConfig, outlook: Outlook, stage: Stage, times: int = 1) -> Use:
    """The recordings of a stage, made so many times, and the rows beside them."""
    kept = kept_of(outlook.model, stage)
    sides = [kept[side] for side in order_of(config, stage)]
    at_a_time = recorded.foreseen(outlook, sides, range(outlook.steps), times)
    return Use("patched runs", rows=config.batch, kept=at_a_time, decoded=1)


def recorder(model: HookedVideoPipeline, config: CircuitConfig, store: RunStore, stage: Stage) -> Recorder:
    """Makes the recordings of a stage, each in its place and within its part of the memory."""
    use = lambda outlook: use_of(config, outlook, stage)
    return recorded.recorder(model, config, store, kept_of(model, stage), order_of(config, stage), use)
