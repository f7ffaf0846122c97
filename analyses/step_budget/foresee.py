"""What the search for an allocation takes."""

from __future__ import annotations

from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit.choice import TEST, kept
from cos_interp.analyses.step_budget import StepBudgetConfig
from cos_interp.analyses.step_budget.measure import SHOWN, STAGE, pieces, randoms, searched


def foresee(config: StepBudgetConfig, outlook: Outlook) -> list[Use]:
    """Of every item a run of each allocation, and a fine one; none for the chosen one where that is the scheduler's own."""
    asked = [piece for piece, _ in pieces(config) if piece.problem is not None]
    search, test = (sum(piece.stage == stage for piece in asked) for stage in (STAGE, TEST))
    judged = int(any(piece.problem.judged for piece in asked if piece.problem is not None))
    beside = 1 + len(randoms(config))
    clip = outlook.shape.clip_bytes
    clip *= sum(kept(p.problem, clip) for p in asked if p.stage == TEST and p.problem is not None)
    return [
        Use("runs of the search", search * len(searched(config)), decoded=judged),
        Use("runs of the test, without the chosen allocation", test * beside, decoded=1, disk=(len(SHOWN) - 1) * clip),
        Use("runs with the chosen allocation", test, decoded=1, bound=True, disk=clip,
            more="none where the scheduler's own levels are the best"),
        Use("fine runs", len(asked), config.finer * config.num_inference_steps),
    ]  # fmt: skip
