"""What a trajectory run takes."""

from __future__ import annotations

from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.driver.thumbnails import thumbnail_bytes
from cos_interp.analyses.kit.problems import chosen_steps, problems
from cos_interp.analyses.trajectory import TrajectoryConfig
from cos_interp.analyses.trajectory.measure import EXACT, KEPT, layers_of


def foresee(config: TrajectoryConfig, outlook: Outlook) -> list[Use]:
    """Every noise of every problem, with its states in short."""
    runs = len(problems(config)) * config.noises
    states = len(chosen_steps(config)) * (2 + len(layers_of(config, outlook.model)))
    small = thumbnail_bytes(*outlook.shape.pixels)
    shown = sum(problem.kept(outlook.shape.clip_bytes) for problem in problems(config)) * config.noises
    disk = runs * (states * KEPT * 4 + small) + shown * len(chosen_steps(config)) * small
    return [Use("runs", runs, held=config.noises * states * EXACT * 4, decoded=1, disk=disk)]
