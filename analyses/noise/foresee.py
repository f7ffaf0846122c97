"""What a noise run takes."""

from __future__ import annotations

from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit.problems import problems
from cos_interp.analyses.noise import NoiseConfig
from cos_interp.analyses.noise.measure import at_frames, at_steps


def foresee(config: NoiseConfig, outlook: Outlook) -> list[Use]:
    """A generation an item; those that are disturbed at one step from it on, those of a frame whole."""
    found, frames = problems(config), outlook.shape.latent[1]
    steps, whole = at_steps(config, frames, 0), at_frames(config, frames)
    left = sum(outlook.left(one.steps[0]) for one in steps)
    shown = sum(problem.kept(outlook.shape.clip_bytes) for problem in found) * (1 + 2 * len(config.modes))
    rows = min(config.batch, max(len(steps), len(whole)))
    return [
        Use("undisturbed runs", len(found), decoded=1, disk=shown * outlook.shape.clip_bytes),
        Use(f"runs with noise at a step, {len(found) * len(steps):,} rows", blocks=len(found) * left, rows=rows, decoded=1),
        Use("runs with noise in a frame", len(found) * len(whole), rows=rows, decoded=1),
    ]
