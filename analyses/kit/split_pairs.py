"""Prompt pairs in two parts that never meet: some to look at, further ones to test on. Of a task, or of a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.analyses.kit import groups, pair_file
from cos_interp.analyses.kit.pairs import Pair, Recorder, find_pair
from cos_interp.analyses.kit.problems import fits_tasks
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline

FIRST_UNSEEN = 1000  # number of the first pair that is only tested on, however many are looked at


NONE_LEFT = "No pair is left to test on: all of the file were looked at. Give a smaller --pairs, or a longer file."


class Pairs(Protocol):
    """Settings of what goes over such pairs."""

    @property
    def task_name(self) -> str: ...
    @property
    def pairs(self) -> int: ...
    @property
    def check_pairs(self) -> int: ...
    @property
    def unique(self) -> bool: ...
    @property
    def solved(self) -> bool: ...
    @property
    def pair_file(self) -> str | None: ...


def counts(config: Pairs, looking: bool = True) -> tuple[int, int]:
    """How many pairs are looked at (none without ``looking``) and tested on: of a file its first ones, and what is left of it."""
    if config.pair_file is None:
        return config.pairs if looking else 0, config.check_pairs
    there = len(pair_file.boxes(Path(config.pair_file)))
    seen = min(config.pairs, there) if looking else 0
    return seen, min(config.check_pairs, there - seen)


def pair_of(recorder: Recorder, config: Pairs, index: int, looking: bool = True) -> tuple[Pair, pair_file.Boxes]:
    """The recorded pair of a number, and its boxes. NoPair where the model does not solve one, or makes one video of both sides;
    InterpError for a pair of a file whose sides have two noises."""
    if config.pair_file is None:
        return find_pair(recorder, config.task_name, "prompt", index, config.unique, config.solved), {}
    path = Path(config.pair_file)
    place = index - FIRST_UNSEEN + counts(config, looking)[0] if index >= FIRST_UNSEEN else index
    sides = pair_file.of_one_noise(pair_file.read(path, recorder.config)[place])
    return pair_file.recorded(recorder, sides, config.solved), pair_file.boxes(path)[place]


def none_left(config: Pairs, units: Iterable[str]) -> list[str]:
    """A note where a file has no pair beyond those that are looked at. ``units``: all names of a run's."""
    asked = config.pair_file is not None and config.check_pairs > 0
    return [NONE_LEFT] if asked and not any(name.startswith("check") for name in units) else []


def has_groups(config: Pairs, asked: Sequence[str], where: str) -> None:
    """InterpError for token groups that no pair of a file has; ``where`` asks for them. Of a task each pair says what it has."""
    if config.pair_file is None:
        return
    there = set[str]().union(*(groups.named(boxes) for boxes in pair_file.boxes(Path(config.pair_file))))
    if missing := [name for name in dict.fromkeys(asked) if name not in there]:
        raise InterpError(
            f"{where} asks for tokens of {', '.join(missing)}; the pairs of --pair-file {config.pair_file} have "
            f"{', '.join(sorted(there))}: give these, or draw boxes of that name"
        )


def fits(config: Pairs, settings: AnalysisConfig, model: HookedVideoPipeline) -> None:
    """InterpError where the tasks, or the pairs of a file, are not for a model."""
    if config.pair_file is None:
        fits_tasks(model, "--pair-file FILE, or another model")
        return
    path = Path(config.pair_file)
    pair_file.check_model(path, settings, model)
    pair_file.boxes(path)
