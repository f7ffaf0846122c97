"""Decoded steps of a run's problems as videos, in the layouts that other people's evaluators read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cos_interp.analyses.driver import identity
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.experiment import load_model
from cos_interp.analyses.driver.inputs import named_files
from cos_interp.analyses.driver.loaded import LoadedRun
from cos_interp.analyses.driver.prompt_lists import FRAME, SAID_OF, TEXT, TRUTH
from cos_interp.analyses.driver.settings import SuiteConfig
from cos_interp.analyses.kit.problems import Problem, fits, generate, problems
from cos_interp.analyses.kit.readings import clean_videos
from cos_interp.interp import identity as content
from cos_interp.interp.files import write_atomic
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.trajectory import Run
from cos_interp.tasks import Case, suite
from cos_interp.tasks.people import COLUMNS
from cos_interp.tasks.scorer import case_of
from cos_interp.tasks.steps import places
from cos_interp.tasks.video import encode_mp4, played_at

OWN = "own"  # the split of what is not of the suite
TOLD = "truth"  # the folder of what scorers are told


def export(
    run: LoadedRun, folder: Path, layout: str, model: HookedVideoPipeline | None = None, execute: bool = False,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None, elsewhere: Mapping[str, Any] | None = None,
) -> list[Path]:  # fmt: skip
    """Generate the problems of a run again, from their own noise, and write every decoded clean estimate and the final video.

    Written below ``folder``: the layout's files (see :mod:`cos_interp.tasks.steps`), ``labels.csv``, a line a video for people to
    fill in, and in ``truth`` what a scorer is told of what is not the suite's. ``elsewhere``: settings of the loading in place of
    the run's. Returns the videos. RunError for a run without problems to generate, for a model that is not the run's, and for
    what a scorer expects that cannot be written.
    """
    if not isinstance(run.config, SuiteConfig) or run.facts["model"]["digest"] == "":  # decoded steps of others have no model
        raise RunError(f"{run.folder} holds a run of {run.name}, which has no items to generate: give one of chain-of-steps")
    _same_code(run, execute)
    model = model or load_model(run.config.model_copy(update=elsewhere))
    _the_same(run, model)
    fits(run.config, model)
    asked, written = problems(run.config), list[Path]()
    cases = {p.name: case_of(p.item) if p.item is not None else p.case for p in asked}
    expected = {name: _expected(case) for name, case in cases.items() if case is not None}
    for done, problem in enumerate(asked):
        progress(done, len(asked), problem.name)
        made = generate(model, run.config, problem)
        at, case = key(problem, run.config.confirm), cases[problem.name]
        written += write(folder, layout, at, made, clean_videos(model, made), model.frame_rate)
        if case is not None and not at.startswith(f"{suite.NAME}/"):
            _truth(folder / TOLD / at, case, expected[problem.name], model.frame_rate)
    _labels(folder, written)
    return written


def _same_code(run: LoadedRun, execute: bool) -> None:
    """RunError for a run with code of its own that nobody allowed to execute, or that has changed since."""
    if not identity.is_of_own_code(run.config):
        return
    held = run.facts.get("code", {})
    if not execute:
        raise RunError(f"the run in {run.folder} was made with code of its own, {', '.join(held)}: --execute executes it again")
    if identity.code_of(run.config) != held:
        raise RunError(f"{', '.join(held)} has changed since the run in {run.folder} was made: run its command again first")


def _the_same(run: LoadedRun, model: HookedVideoPipeline) -> None:
    digest = content.whole(model.pipe)
    if digest != run.facts["model"]["digest"]:
        raise RunError(
            f"the run in {run.folder} was made by a model of digest {run.facts['model']['digest'][:12]}, not {digest[:12]}"
        )


def key(problem: Problem, confirm: bool) -> str:
    """Where a problem lies in the benchmark's layout. The suite's name is the split of its items."""
    if problem.case is not None and problem.case.key:
        return problem.case.key
    split = suite.NAME if problem.item is not None and not confirm and problem.task in suite.OF else OWN
    return f"{split}/{problem.task}/{problem.index:05d}"


def write(
    folder: Path, layout: str, key: str, run: Run, clips: np.ndarray, rate: float | None = None
) -> list[Path]:  # fmt: skip
    """Write the clips ``[step + 1, frame, height, width, 3]`` of one run, the last being its final video; returns the videos."""
    steps, final, schedule = places(layout, folder, key, run.steps)
    paths = steps if final is None else [*steps, final]
    for path, clip in zip(paths, clips, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, encode_mp4(clip, played_at(len(clip), rate)))
    if schedule is not None:
        listed = [{"step": k, "timestep": float(t), "sigma": float(s)} for k, (t, s) in enumerate(zip(run.timesteps, run.sigmas))]
        write_atomic(schedule, (json.dumps(listed, indent=1) + "\n").encode())
    return paths


def _expected(case: Case) -> bytes | None:
    """What a scorer is told under that key, as a file of JSON; None where there is nothing. RunError for what is no JSON."""
    try:
        text = json.dumps(case.expected, indent=1, default=lambda value: value.tolist(), allow_nan=False)
    except (TypeError, ValueError, AttributeError) as error:
        raise RunError(f"what is expected of {case.name} cannot be written as JSON ({error}): let it be JSON") from error
    return None if case.expected is None else (text + "\n").encode()


def _truth(place: Path, case: Case, expected: bytes | None, rate: float | None) -> None:
    """What ``--truth`` reads of a sample: prompt, first frame, true video, what is expected, and the files that this names."""
    files: dict[str, bytes] = {TEXT: f"{case.prompt}\n".encode()}
    if case.image is not None:
        picture = io.BytesIO()
        Image.fromarray(case.image).save(picture, "PNG")
        files[FRAME] = picture.getvalue()
    if case.truth is not None:
        files[TRUTH] = encode_mp4(case.truth, played_at(len(case.truth), rate))  # as the videos beside it: of their size
    if expected is not None:
        files[SAID_OF[0]] = expected
    beside = {name for _, name in named_files(case.expected) if not Path(name).is_absolute() and ".." not in Path(name).parts}
    files |= {name: (case.folder / name).read_bytes() for name in sorted(beside) if (case.folder / name).is_file()}
    for name, data in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(place / name, data)


def _labels(folder: Path, videos: list[Path]) -> None:
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(COLUMNS)
    table.writerows([path.relative_to(folder).as_posix(), "", "", ""] for path in videos)
    write_atomic(folder / "labels.csv", text.getvalue().encode())
