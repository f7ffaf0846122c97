"""Chain-of-Steps: the verifier's accuracy on the clean estimate of every step (CoS section 3.1, the headline).

Steps are compared with pixel frames on the same videos: an answer that forms frame by frame would be right in early
frames first (Chain-of-Frames); one that forms along the steps becomes right in all frames at once.
"""

from __future__ import annotations

import torch

from cos_interp.analyses.chain_of_steps import ChainOfStepsConfig
from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.facts import PIXELS, RunFacts
from cos_interp.analyses.kit.problems import Problem, fits, generate, problems
from cos_interp.analyses.kit.readings import clean_videos, read_steps
from cos_interp.interp.model import HookedVideoPipeline

Piece = tuple[Problem, int]  # a problem and the number of its noise


def pieces(config: ChainOfStepsConfig) -> list[tuple[Piece, list[str]]]:
    return [((p, noise), [_name((p, noise))]) for p in problems(config) for noise in range(config.noises)]


def _name(piece: Piece) -> str:
    return f"{piece[0].name}-noise-{piece[1]}"


def measure(model: HookedVideoPipeline, config: ChainOfStepsConfig, piece: Piece) -> Unit:
    problem, noise = piece
    run = generate(model, config, problem, problem.noise(noise))
    clips = clean_videos(model, run)
    rows = [{**problem.facts, "noise": noise, **row} for row in read_steps(problem, clips, run)]
    kept = {"frames": torch.from_numpy(clips)} if problem.first and noise == 0 else {}
    axes = dict.fromkeys(kept, ("step", *PIXELS))
    return Unit(rows, kept, RunFacts(axes=axes, sigmas=tuple(run.sigmas), prompt=problem.call["prompt"]))


work = each_unit(measure, _name)
check = fits
