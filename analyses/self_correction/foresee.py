"""What a run of self-correction takes."""

from __future__ import annotations

from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit.problems import problems
from cos_interp.analyses.self_correction import SelfCorrectionConfig
from cos_interp.analyses.self_correction.measure import SPREAD, UNCORRECTED


def foresee(config: SelfCorrectionConfig, outlook: Outlook) -> list[Use]:
    """A generation an item, every step of it decoded."""
    found, clips = problems(config), outlook.steps + 1
    shown = sum(problem.index < UNCORRECTED for problem in found)  # those of them that read as a wrong answer
    return [Use("runs, every step decoded", len(found), decoded=clips, disk=shown * (SPREAD + 3) * outlook.shape.clip_bytes)]
