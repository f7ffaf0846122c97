"""The videos among which a run chooses, as latents: an item's right answers, clips of the user's, or other noises' videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.driver.settings import ChoiceConfig
from cos_interp.analyses.kit.candidates import candidates
from cos_interp.analyses.kit.problems import Problem, fits, generate, item_of, problems, verdict_of
from cos_interp.interp.choosing import alike
from cos_interp.interp.encoding import encode
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.trajectory import Run
from cos_interp.tasks.video import read_mp4

CLIPS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".gif", ".npy")


class NoChoice(RuntimeError):
    """The videos of a problem are one: there is nothing to choose."""


@dataclass(frozen=True)
class Choices:
    """Latents ``[candidate, channel, frame, row, col]`` of the videos that a run may make, and their names."""

    names: tuple[str, ...]
    latents: Tensor

    def nearest(self, latents: Tensor) -> int:
        """The candidate that a final latent ``[1, channel, frame, row, col]`` is nearest to."""
        return int((self.latents - latents.to(self.latents)).flatten(1).norm(dim=1).argmin())

    def read(self, problem: Problem, latents: Tensor, clip: np.ndarray) -> tuple[int | None, str]:
        """Which candidate a final latent and its clip are, and the verdict: by the verifier, by nearness where there is none."""
        if problem.item is None:
            return self.nearest(latents), "nearest"
        verdict = verdict_of(problem, clip)
        return (self.names.index(verdict.answer) if verdict.solved else None), verdict.status


def each_choice(config: ChoiceConfig) -> list[tuple[Problem, list[str]]]:
    """The pieces of an experiment with one unit a problem that has several videos."""
    return [(p, [p.name]) for p in problems(config) if p.item is None or not p.item.unique]


def check_choices(config: ChoiceConfig, model: HookedVideoPipeline) -> None:
    """InterpError for what no run of the experiment could use: clips that are not read, differ in size, or coincide."""
    fits(config, model)
    if config.candidates is not None:
        for problem in problems(config):
            names, videos = _clips(_folder(config.candidates, problem))
            found = Choices(names, encode(model, videos).cpu())
            if (one := coinciding(found)) is not None:
                raise InterpError(f"--candidates {config.candidates}: {one[0]} and {one[1]} coincide: give videos that differ")
    elif config.prompts is None and not each_choice(config):
        raise InterpError(
            f"no item of {', '.join(config.tasks)} among the first {config.items} has several right answers: take maze or place, "
            "or more --items"
        )


def choices(model: HookedVideoPipeline, config: ChoiceConfig, problem: Problem, runs: Sequence[Run]) -> Choices:
    """What ``runs[0]`` of a problem chooses among; without clips and verifier these are the videos of all ``runs``.

    NoChoice where they coincide. InterpError for clips of another size than the run's, and for an autoencoder that gives no
    latents of an item's answers.
    """
    like = runs[0].latents
    if problem.item is not None:
        right = candidates(model, item_of(problem), like)
        if right is None:
            raise InterpError(f"{model.name}: its autoencoder gives no latents of the tasks' videos: give --prompts")
        found = Choices(right.answers, right.latents)
    elif config.candidates is not None:
        names, videos = _clips(_folder(config.candidates, problem))
        found = Choices(names, encode(model, videos).cpu())
        if found.latents.shape[1:] != like.shape[1:]:  # of a call that asks for another size than the model's own
            raise InterpError(
                f"--candidates {config.candidates}: the clips have the latents {list(found.latents.shape[1:])}, a run of "
                f"{problem.name} {list(like.shape[1:])}: give clips of the size and length that the model makes"
            )
        made = model.decode(like[:1]).shape[1:4]
        if videos.shape[1:4] != made:  # an autoencoder drops what is over, of time and of the picture
            raise InterpError(
                f"--candidates {config.candidates}: the clips have {_sized(videos.shape[1:4])}, and the model makes "
                f"{_sized(made)}: cut or scale them"
            )
    else:
        found = Choices(tuple(f"noise {n}" for n in range(len(runs))), torch.cat([run.latents.float().cpu() for run in runs]))
    if (one := coinciding(found)) is not None:
        raise NoChoice(f"{one[0]} and {one[1]} of {problem.name} coincide")
    return found


def runs_of(model: HookedVideoPipeline, config: ChoiceConfig, problem: Problem, least: int = 1) -> list[Run]:
    """Runs of a problem from its noises: as many as its candidates are made of, at least ``least``."""
    return [generate(model, config, problem, problem.noise(n)) for n in range(noises_of(config, problem, least))]


def noises_of(config: ChoiceConfig, problem: Problem, least: int = 1) -> int:
    """From how many noises a problem runs."""
    made_of_runs = problem.item is None and config.candidates is None
    return max(least, config.noises if made_of_runs else 1)


def coinciding(found: Choices) -> tuple[str, str] | None:
    """The names of two candidates that are one."""
    pairs = combinations(range(len(found.names)), 2)
    return next(((found.names[a], found.names[b]) for a, b in pairs if alike(found.latents[a], found.latents[b])), None)


# --- clips of the user's ---------------------------------------------------------------------------------------------


def _sized(shape: Sequence[int]) -> str:
    frames, height, width = shape
    return f"{frames} frames of {width}x{height}"


def _folder(candidates: str, problem: Problem) -> Path:
    """A problem's own folder of clips where there is one, else that of all."""
    own = Path(candidates) / problem.name
    return own if own.is_dir() else Path(candidates)


def _clips(folder: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """The names of the clips, and uint8 ``[clip, pixel frame, height, width, 3]``."""
    if not folder.is_dir():
        raise InterpError(f"--candidates {folder} is {'a file' if folder.exists() else 'not there'}: give a folder of clips")
    names = tuple(sorted(p.name for p in folder.glob("*") if p.suffix.lower() in CLIPS))
    if len(names) < 2:
        raise InterpError(f"--candidates {folder} holds {len(names)} clips: give two or more ({', '.join(CLIPS)})")
    videos = [_video(str(folder / name)) for name in names]
    if len({video.shape for video in videos}) > 1:
        shapes = ", ".join(f"{name} {list(video.shape[:3])}" for name, video in zip(names, videos, strict=True))
        raise InterpError(f"--candidates {folder}: clips of several sizes ({shapes}): give all those that the model makes")
    return names, np.stack(videos)


def _video(path: str) -> np.ndarray:
    """uint8 ``[pixel frame, height, width, 3]`` of a video, or of an array saved by numpy."""
    try:
        video = _array(path) if path.lower().endswith(".npy") else read_mp4(Path(path))
    except (ValueError, OSError, EOFError) as error:
        raise InterpError(f"--candidates: {path} is no readable clip: {error}") from error
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3 or not video.size:
        raise InterpError(f"--candidates: {path} holds {video.dtype} {list(video.shape)}, not uint8 [frame, height, width, 3]")
    return video


def _array(path: str) -> np.ndarray:
    """What numpy saved: one array alone. Named so by somebody, the file may be anything."""
    with Path(path).open("rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)
