"""What is kept of a pair's recordings, and where: of the run that is steered the streams from which its edits start, of the other
one the residual streams that are put there."""

from __future__ import annotations

from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit import recorded
from cos_interp.analyses.kit.pairs import Recorder
from cos_interp.analyses.kit.recorded import Gives
from cos_interp.analyses.steering import SteeringConfig
from cos_interp.interp.keeping import Keeping
from cos_interp.interp.model import HookedVideoPipeline

ORDER = ("corrupt", "clean")


def starts(steps: int) -> list[int]:
    """The steps in which edits start: those of all steps, and of their second half."""
    return [0, steps // 2]


def kept_of(config: SteeringConfig, model: HookedVideoPipeline, layer: int | None, compared: bool = False) -> dict[str, Gives]:
    """What each side is recorded for. ``layer``: the edited block, None for all. ``compared``: both give its stream."""
    layers = tuple(range(model.layers)) if layer is None else (layer,)
    given = [f"blocks.{'*' if layer is None else layer}.hook_resid_post"]
    itself = Gives(given if compared else (), None if compared else starts(config.num_inference_steps), Keeping(layers))
    return {"corrupt": itself, "clean": Gives(given, None, Keeping(()))}


def of_directions(outlook: Outlook) -> int:
    """Bytes at once: of both sides and their difference in one step, in float32; of products by latent frame, of all of them, and
    of what their axes take, in double precision."""
    grid, (width, _) = outlook.shape.grid, outlook.model.adapter.width(outlook.shape.engine.module)
    return 3 * grid.tokens * width * 4 + (grid.shape[0] + 4) * width * width * 8


def use_of(config: SteeringConfig, outlook: Outlook, layer: int | None, compared: bool = False, pairs: int = 1) -> Use:
    """The recordings of a pair, made for so many of them, and the rows beside them."""
    kept = kept_of(config, outlook.model, layer, compared)
    at_a_time = recorded.foreseen(outlook, [kept[side] for side in ORDER], starts(outlook.steps), pairs)
    return Use("steered runs", rows=config.batch, held=of_directions(outlook), kept=at_a_time, decoded=1)


def recorder(
    model: HookedVideoPipeline, config: SteeringConfig, store: RunStore, layer: int | None, compared: bool = False
) -> Recorder:  # fmt: skip
    """Makes the recordings of a pair, each in its place and within its part of the memory."""
    kept = kept_of(config, model, layer, compared)
    return recorded.recorder(model, config, store, kept, ORDER, lambda outlook: use_of(config, outlook, layer, compared))
