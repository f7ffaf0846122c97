"""Items longer than trained against items of the same scenes that are not, from one noise.

Three videos of a scene: the long item (*beyond*), the short one in a video of as many frames (*within*), and the short one in a
video as long as trained ones (*trained*). So it is told apart what a longer item costs and what a longer video costs. A ball
rolls on in any video: within is the beginning of the same run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np
import torch

from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.facts import PIXELS
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.problems import call_for, fits_tasks
from cos_interp.analyses.kit.readings import right_from_first
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.analyses.lengths import BEYOND, TRAINED, WITHIN, LengthsConfig, PairFacts
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.trajectory import Run
from cos_interp.tasks import Item, get_task
from cos_interp.tasks.longer import LongPair, long_pair


@dataclass(frozen=True)
class Piece:
    """A scene of a task."""

    task: str
    index: int

    @property
    def name(self) -> str:
        return f"{self.task}-{self.index:03d}"


def pieces(config: LengthsConfig) -> list[tuple[Piece, list[str]]]:
    made = [Piece(task, index) for task in config.tasks for index in range(config.items)]
    return [(piece, [piece.name]) for piece in made]


def check(config: LengthsConfig, model: HookedVideoPipeline) -> None:
    fits_tasks(model, "or another model")


@lru_cache(maxsize=16)
def pair_of(config: LengthsConfig, piece: Piece) -> LongPair:
    """The scene of a piece: the first of its seeds that has a pair."""
    seeds = (seed_for("long item", *config.about, piece.task, piece.index, attempt) for attempt in count())
    return next(made for seed in seeds if (made := long_pair(piece.task, config.frames, seed)) is not None)


def measure(model: HookedVideoPipeline, config: LengthsConfig, piece: Piece) -> Unit:
    pair, seed = pair_of(config, piece), seed_for("noise", *config.about, piece.task, piece.index)
    beyond, trained = (_run(model, config, item, seed) for item in (pair.beyond, pair.trained))
    clips = {BEYOND: beyond.decode()[0], TRAINED: trained.decode()[0]}
    if pair.within is pair.beyond:  # the beginning of the same run
        clips[WITHIN], within = clips[BEYOND][: len(pair.trained.cells)], pair.trained
    else:
        clips[WITHIN], within = _run(model, config, pair.within, seed).decode()[0], pair.within
    asked = {BEYOND: (pair.beyond, pair.length), WITHIN: (within, pair.short), TRAINED: (pair.trained, pair.short)}
    rows = [_row(piece, video, clips[video], *about) for video, about in asked.items()]
    shown = {BEYOND: torch.from_numpy(clips[BEYOND])} if piece.index == 0 else {}
    facts = PairFacts(sigmas=tuple(beyond.sigmas), prompt=pair.beyond.prompt, length=pair.length, short=pair.short,
                      axes=dict.fromkeys(shown, PIXELS))  # fmt: skip
    return Unit(rows, shown, facts)


def _run(model: HookedVideoPipeline, config: LengthsConfig, item: Item, seed: int) -> Run:
    generation = {"num_inference_steps": config.num_inference_steps, "guidance_scale": config.guidance_scale}
    return model.run(**call_for(model, item, seed, **generation) | {"num_frames": len(item.cells)})


def _row(piece: Piece, video: str, frames: np.ndarray, item: Item, length: int) -> Row:
    verdict = get_task(piece.task).verify(item, frames)
    about: Row = {"problem": piece.name, "task": piece.task, "video": video, "length": length, "frames": len(frames)}
    right = right_from_first(item, frames)
    return {**about, "solved": float(verdict.solved), "status": verdict.status, "error": verdict.error, "right": right}


work = each_unit(measure)
