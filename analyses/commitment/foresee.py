"""What a commitment run takes."""

from __future__ import annotations

from cos_interp.analyses.commitment import CommitmentConfig
from cos_interp.analyses.commitment.measure import DRAWS, pieces, steps_of
from cos_interp.analyses.commitment.transplants import transplants, use_of
from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit.foreseen import SOME, Nothing, blocks_of_rows, groups, recordings
from cos_interp.analyses.kit.grid import EVERYWHERE
from cos_interp.analyses.kit.problems import Problem
from cos_interp.interp.patches import Patch


def foresee(config: CommitmentConfig, outlook: Outlook) -> list[Use]:
    """Every noise of every problem, what is left of a run for every re-noised state, and the pairs of the transplants."""
    asked = [what for (_, what), _ in pieces(config)]
    found = [what for what in asked if isinstance(what, Problem)]
    pairs = [what for what in asked if not isinstance(what, Problem)]
    choose = [problem for problem in found if problem.item is None or not problem.item.unique]
    choosing, steps = len(choose), steps_of(config, outlook.run().sigmas)
    shown = sum(problem.kept(outlook.shape.clip_bytes) for problem in choose) * (1 + len(steps))
    shifts = "a step more or less: the noise levels follow from the size" if _dynamic(outlook) and config.steps is None else ""
    uses = [
        Use("runs", config.noises * len(found), decoded=len(steps)),
        Use(f"re-noised runs, {DRAWS * choosing * len(steps):,} rows", blocks=DRAWS * choosing * sum(map(outlook.left, steps)),
            rows=DRAWS, decoded=DRAWS, disk=shown * outlook.shape.clip_bytes, more=shifts),
    ]  # fmt: skip
    if not pairs:
        return uses
    moved = sum(_moved(config, outlook, *pair) for pair in pairs)
    groups_of = "for two other answers than the first ones, other token groups"
    use = use_of(config, outlook, len(pairs))
    assert use.kept is not None
    sides = recordings(outlook, [outlook] * (2 * len(pairs)), use.kept, kind="seed", pairs=len(pairs))
    return [*uses, sides, Use("transplants", blocks=moved, decoded=use.decoded, more=groups_of)]


def _moved(config: CommitmentConfig, outlook: Outlook, task: str, index: int) -> int:
    """Block calls of the transplants of a pair."""
    names = [EVERYWHERE, *groups(outlook, config, task, "seed", index)]
    run = outlook.run()
    return blocks_of_rows(
        outlook,
        [Patch(cell.hook, (cell.step,), Nothing(), run.branches, None if cell.group == EVERYWHERE else SOME)
         for cells in transplants(outlook.steps, outlook.model.layers, names) for cell in cells],
    )  # fmt: skip


def _dynamic(outlook: Outlook) -> bool:
    return bool(outlook.model.pipe.scheduler.config.get("use_dynamic_shifting"))
