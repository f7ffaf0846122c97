"""What a run of perception-before-action takes."""

from __future__ import annotations

from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit.problems import problems
from cos_interp.analyses.perception import PerceptionConfig


def foresee(config: PerceptionConfig, outlook: Outlook) -> list[Use]:
    """A generation an item, every step of it decoded."""
    found, clips = problems(config), outlook.steps + 1
    shown = sum(problem.first for problem in found)
    return [Use("runs, every step decoded", len(found), decoded=clips, disk=shown * clips * outlook.shape.clip_bytes)]
