"""What a posterior run takes."""

from __future__ import annotations

from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit.choices import each_choice, noises_of
from cos_interp.analyses.kit.problems import spread
from cos_interp.analyses.posterior import PosteriorConfig
from cos_interp.analyses.posterior.measure import NOISES, SHOWN


def foresee(config: PosteriorConfig, outlook: Outlook) -> list[Use]:
    """Two noises of every problem with several answers, or as many as its candidates are made of."""
    found = [problem for problem, _ in each_choice(config)]
    shown = sum(problem.kept(outlook.shape.clip_bytes) for problem in found) * (1 + len(spread(outlook.steps, SHOWN)))
    noises = sum(noises_of(config, problem, NOISES) for problem in found)
    return [Use("runs", noises, decoded=1, disk=shown * outlook.shape.clip_bytes)]
