"""What averaging checkpoints takes."""

from __future__ import annotations

from cos_interp.analyses.averaging import AveragingConfig
from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit.problems import problems


def foresee(config: AveragingConfig, outlook: Outlook) -> list[Use]:
    """A run of each item with the weights of each variant; beside the model its average is held, and one checkpoint at a time."""
    found, kinds = problems(config), config.variants
    beside = 2 * sum(outlook.shape.weights.values())
    first = sum(problem.first for problem in found)
    disk = len(found) * outlook.shape.latent_bytes + first * len(kinds) * outlook.shape.clip_bytes
    return [Use(f"runs of each of {len(kinds)} weights", len(kinds) * len(found), held=beside, decoded=1, disk=disk)]
