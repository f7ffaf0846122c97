"""What a run of ensembles takes."""

from __future__ import annotations

from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.ensemble import EnsembleConfig
from cos_interp.analyses.ensemble.merging import recipes
from cos_interp.analyses.kit.problems import problems
from cos_interp.interp.selecting import numbers


def foresee(config: EnsembleConfig, outlook: Outlook) -> list[Use]:
    """Every seed alone; for each tensor that is merged on the way the seeds together, up to the last merged step, then the first;
    and each at the norm that merging leaves."""
    count = len(problems(config)) * config.repeats
    made = count * sum(recipe is not None for recipe in recipes(config).values())
    after = outlook.left(max(numbers(config.steps, outlook.steps, "step")) + 1)
    merged = config.seeds * (outlook.blocks() - after) + after
    shown = sum(problem.kept(outlook.shape.clip_bytes) for problem in problems(config) if problem.judged)
    disk = shown * (1 + 2 * len(config.tensors)) * outlook.shape.clip_bytes
    return [
        Use("runs of the seeds alone", count * config.seeds, decoded=1),
        Use("runs at the norm that merging leaves", made * config.seeds, rows=config.seeds, decoded=config.seeds),
        Use(f"ensembles, {made:,}", blocks=made * merged, rows=config.seeds, decoded=1, disk=disk),
    ]
