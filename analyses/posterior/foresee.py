"""What a posterior run takes."""

from __future__ import annotations

from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit.choices import each_choice, noises_of
from cos_interp.analyses.posterior import PosteriorConfig
from cos_interp.analyses.posterior.measure import NOISES


def foresee(config: PosteriorConfig, outlook: Outlook) -> list[Use]:
    """Two noises of every problem with several answers, or as many as its candidates are made of."""
    return [Use("runs", sum(noises_of(config, problem, NOISES) for problem, _ in each_choice(config)), decoded=1)]
