"""Scores along decoded steps that another program left, without a model; beside each what a video without reasoning gets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cos_interp.analyses.chain_of_steps import ChainOfStepsConfig, SampleFacts
from cos_interp.analyses.chain_of_steps.beside import Judge, beside, ends_of, unreadable
from cos_interp.analyses.chain_of_steps.films import Film, in_time, read
from cos_interp.analyses.chain_of_steps.told import case_for, dimension_of, final_frame, item_at, split_of, told_of
from cos_interp.analyses.driver.experiment import Unit
from cos_interp.analyses.driver.facts import PIXELS
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.problems import reading_columns, scorer_of, spread, verdict_columns
from cos_interp.interp.errors import InterpError
from cos_interp.tasks import Case, get_task
from cos_interp.tasks.people import read_labels
from cos_interp.tasks.scorer import score
from cos_interp.tasks.scorers import OF_FILES
from cos_interp.tasks.steps import Sample, find, lacking

SHOWN = 1  # samples of a task whose decoded steps are kept for the page


@dataclass(frozen=True)
class Place:
    """One sample of the folder: its number, and its place among those of its task."""

    index: int
    within: int
    sample: Sample

    @property
    def name(self) -> str:
        return f"sample-{self.index:05d}"


def places(config: ChainOfStepsConfig) -> list[Place]:
    """All samples below the folder, in the order of their keys."""
    count: dict[str, int] = {}
    out = []
    for index, sample in enumerate(find(Path(str(config.from_steps)))):
        within = count.get(sample.task, 0)
        count[sample.task] = within + 1
        out.append(Place(index, within, sample))
    return out


def check(config: ChainOfStepsConfig) -> None:
    """InterpError for labels of no video of the folder, and for a folder of true videos that has none of them, or holds a file
    that cannot be read."""
    folder, samples = Path(str(config.from_steps)), [place.sample for place in places(config)]
    if config.labels is not None:
        known = {below(folder, path) for sample in samples for path in _paths(sample)}
        if strange := sorted(set(read_labels(Path(config.labels), "--labels")) - known):
            raise InterpError(f"--labels {config.labels}: {strange[0]} is no video of {folder}, which has {min(known)}")
    if config.truth is not None and not any(told_of(config, sample) for sample in samples):
        raise InterpError(
            f"--truth {config.truth} has the true video of no sample: expected files like {samples[0].key}/ground_truth.mp4, "
            "or first_frame.png and final_frame.png there"
        )
    for sample in samples:
        case_for(config, sample)


def _paths(sample: Sample) -> list[Path]:
    return [step.path for step in sample.steps] + ([] if sample.final is None else [sample.final])


def below(folder: Path, path: Path) -> str:
    """How a video is named: its path below the folder. The final video of a folder of steps lies beside it."""
    return Path(os.path.relpath(path, folder)).as_posix()


# --- who judges ------------------------------------------------------------------------------------------------------


def judge_of(config: ChainOfStepsConfig, sample: Sample, case: Case) -> Judge | None:
    """People's labels, the scorer that was asked for, or the verifier of the suite's item; None where nobody judges."""
    if config.labels is not None:
        labels, folder = read_labels(Path(config.labels), "--labels"), Path(str(config.from_steps))
        return lambda video, path: None if path is None else labels.get(below(folder, path))
    scorer = scorer_of(config)
    if scorer is not None:
        return lambda video, path: score(scorer, video, replace(case, file=path))
    item = item_at(sample.key)
    return None if item is None else lambda video, path: score(lambda v, c: get_task(item.task).verify(item, v), video, case)


# --- one sample ------------------------------------------------------------------------------------------------------


def measure(config: ChainOfStepsConfig, place: Place) -> Unit:
    """A row a step, the final video last, and a row for each video that shows no reasoning."""
    sample, folder = place.sample, Path(str(config.from_steps))
    case = case_for(config, sample)
    judge = judge_of(config, sample, case)
    about: Row = {"problem": sample.key, "task": sample.task, "part": case.part, "noise": 0, "difficulty": None, "unique": True}
    about |= {"dimension": dimension_of(config, sample, case), "split": split_of(sample)}
    along = list(_along(sample))
    films = [read(path, below(folder, path)) for _, path in along]
    films = films if at_any_rate(config) else in_time(films, case)
    final = films[-1].comparable if sample.ended else None
    rows: list[Row] = [
        {**about, "kind": "steps", **row, **_judged(judge, film), "distance": difference(film.comparable, final)}
        for (row, _), film in zip(along, films, strict=True)
    ]
    frames = [film.frames for film in films]
    ends = ends_of(case, final_frame(config, sample), next((held for held in reversed(frames) if held is not None), None))
    rows += [{**about, "kind": "beside", **row} for row in beside(case, ends, judge)]
    kept = _kept(frames) if place.within < SHOWN else {}
    axes = dict.fromkeys(kept, ("step", *PIXELS))
    sigmas = tuple(float("nan") if step.sigma is None else step.sigma for step in sample.steps)
    gone = "; ".join(filter(None, (lacking(sample), unreadable(case))))
    facts = SampleFacts(axes=axes, sigmas=sigmas, prompt=case.prompt or sample.key, lacking=gone)
    return Unit(rows, kept, facts)


def at_any_rate(config: ChainOfStepsConfig) -> bool:
    """Whether frame rates do not count: as was asked, or where the judge looks at the file itself."""
    return config.any_rate or config.labels is not None or config.scorer in OF_FILES


def _along(sample: Sample) -> Iterator[tuple[Row, Path]]:
    """Rows of its videos, with their files. ``final``: the one that decides; of steps alone the last stands for it."""
    stands = sample.steps[-1] if sample.steps and sample.ended and sample.final is None else None
    for step in sample.steps:
        yield {"step": step.step, "sigma": step.sigma, "final": step is stands}, step.path
    if sample.final is not None:
        last = sample.steps[-1].step + 1 if sample.steps else sample.place
        yield {"step": last, "sigma": 0.0, "final": True}, sample.final


def _judged(judge: Judge | None, film: Film) -> Row:
    """Frame rate, verdict and readings of a file; one that nobody can judge is undecided with the reason, and has no verdict."""
    if film.wrong or film.frames is None:
        return {"rate": film.rate, "status": None if judge is None else "undecided", "error": film.wrong, "answer": None}
    verdict = None if judge is None else judge(film.frames, film.path)
    return {"rate": film.rate, **verdict_columns(verdict), **({} if verdict is None else reading_columns(verdict))}


def difference(clip: np.ndarray | None, other: np.ndarray | None) -> float | None:
    """Root mean square difference of two videos of one shape, of 1; None where they cannot be compared."""
    if clip is None or other is None or clip.shape != other.shape:
        return None
    return float(np.sqrt(((clip.astype(np.float64) - other) ** 2).mean())) / 255


def _kept(clips: list[np.ndarray | None]) -> dict[str, torch.Tensor]:
    """Eight of the steps, small, for the page; nothing where their shapes differ."""
    whole = [clip for clip in clips if clip is not None]
    picked = [whole[i] for i in spread(len(whole))] if whole else []
    if not picked or len({clip.shape for clip in picked}) > 1:
        return {}
    frames = list(spread(len(picked[0]), 9))
    shrink = max(1, -(-max(picked[0].shape[1:3]) // 160))
    return {"frames": torch.from_numpy(np.stack(picked)[:, frames, ::shrink, ::shrink].copy())}
