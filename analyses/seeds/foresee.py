"""What looking at seeds early takes."""

from __future__ import annotations

from math import prod

from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit.problems import chosen_steps, problems
from cos_interp.analyses.seeds import SeedsConfig
from cos_interp.analyses.seeds.measure import CELLS, LOOKS


def foresee(config: SeedsConfig, outlook: Outlook) -> list[Use]:
    """Every seed of every problem to its end, decoded there and at each look; looks take no block calls."""
    runs = config.noises * len(problems(config))
    channels, *dims = outlook.shape.latent
    features = channels * prod(min(CELLS, size) for size in dims)
    shown = config.noises * sum(problem.kept(outlook.shape.clip_bytes) for problem in problems(config))
    disk = runs * len(chosen_steps(config, LOOKS)) * features * 4 + shown * outlook.shape.clip_bytes
    return [Use("runs", runs, decoded=1, disk=disk)]
