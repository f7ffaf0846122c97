"""What a seed-choice run takes."""

from __future__ import annotations

from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit.choices import each_choice, noises_of
from cos_interp.analyses.seed_choice import CLAIM_AT, WAYS, SeedChoiceConfig
from cos_interp.analyses.seed_choice.measure import steps_of


def foresee(config: SeedChoiceConfig, outlook: Outlook) -> list[Use]:
    """A generation a problem with several answers, and what is left of one for every move of its noise and state."""
    found = [problem for problem, _ in each_choice(config)]
    doses = len({*config.doses, CLAIM_AT}) - 1 + len(WAYS)
    left = doses * outlook.left(0) + len(WAYS) * sum(map(outlook.left, steps_of(config)))
    rows = len(found) * (doses + len(WAYS) * len(steps_of(config)))
    noises = sum(noises_of(config, problem) for problem in found)
    shown = sum(problem.kept(outlook.shape.clip_bytes) for problem in found) * (1 + len(WAYS))
    decided = noises > len(found)  # the candidates are what the model makes of some noises
    return [
        Use("runs", noises, decoded=1),
        Use(f"moved runs, {rows:,} rows", blocks=len(found) * left, rows=config.batch, decoded=config.batch,
            disk=shown * outlook.shape.clip_bytes, bound=decided,
            more="none of a problem whose noises all give one video" if decided else ""),
    ]  # fmt: skip
