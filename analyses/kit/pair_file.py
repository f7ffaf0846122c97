"""Pairs of the user's own: a JSONL file, a line ``{"clean": {"prompt": ..., "image": path, "seed": 0}, "corrupt": {...}}``.

With ``"boxes": {"ball": [left, top, right, bottom]}``, in pixels of the video, a line may name the places that matter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cos_interp.analyses.driver import inputs
from cos_interp.analyses.driver.settings import AnalysisConfig
from cos_interp.analyses.kit.pairs import NoPair, Pair, Recorder
from cos_interp.analyses.kit.problems import Problem, check_calls, refuse_twice, settings_of
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline

SIDES = ("clean", "corrupt")
EXAMPLE = '{"clean": {"prompt": "a red ball"}, "corrupt": {"prompt": "a blue ball"}}'
NAMED = ("all", "rest")  # groups of tokens that are no boxes
OWN = (*inputs.TEXTS, *inputs.PICTURES, "seed")  # what may differ between the sides

Sides = tuple[Problem, Problem]  # clean, corrupt
Boxes = dict[str, tuple[int, int, int, int]]  # name -> left, top, right, bottom in pixels of the video, the last two excluded


def read(path: Path, config: AnalysisConfig) -> list[Sides]:
    """The pairs of a file. A side without a ``seed`` gets the pair's own, which its other side shares; further keys go to the
    pipeline. Images are found relative to the file. InterpError names the line that does not fit, and what would."""
    lines = inputs.json_lines(path, "--pair-file", EXAMPLE)
    places = [f"--pair-file {path}, line {number}" for number, _ in lines]
    found = [
        _pair(where, line, path.parent, place, config) for place, (where, (_, line)) in enumerate(zip(places, lines, strict=True))
    ]
    refuse_twice(zip(places, found, strict=True))
    return found


def _pair(where: str, given: dict[str, Any], folder: Path, place: int, config: AnalysisConfig) -> Sides:
    if set(given) - {"boxes"} != set(SIDES):
        held = ", ".join(given) or "none"
        raise InterpError(f"{where} must have exactly the sides clean and corrupt, it has {held}: {EXAMPLE}")
    _boxes(f"{where}, boxes", given.get("boxes", {}))  # also where no experiment asks for them
    noise = seed_for("noise", *config.about, "pairs", place)
    clean, corrupt = (_side(f"{where}, {name}", given[name], folder, place, noise, config) for name in SIDES)
    if clean == corrupt:
        raise InterpError(f"{where}: both sides are equal; give them another prompt, image or seed")
    unlike = [key for key in {**clean.call, **corrupt.call} if key not in OWN and clean.call.get(key) != corrupt.call.get(key)]
    if unlike:
        raise InterpError(f"{where}: {unlike[0]} differs between the sides; only {', '.join(OWN)} may")
    return clean, corrupt


def recorded(recorder: Recorder, sides: Sides) -> Pair:
    """A pair of a file, recorded. NoPair where the model makes one video of both sides."""
    clean, corrupt = map(recorder, sides)
    if torch.equal(clean.recording.run.latents, corrupt.recording.run.latents):
        raise NoPair("the model makes the same video of both sides, so there is no difference to move along")
    return Pair("own", corrupt, clean)


def check_model(path: Path, config: AnalysisConfig, model: HookedVideoPipeline) -> None:
    """InterpError for a file whose lines do not fit, and for pairs that a model does not take."""
    check_calls(model, [side for sides in read(path, config) for side in sides])


def boxes(path: Path) -> list[Boxes]:
    """The boxes of each line of a file. InterpError names the line whose boxes are none."""
    found = inputs.json_lines(path, "--pair-file", EXAMPLE)
    return [_boxes(f"--pair-file {path}, line {number}, boxes", line.get("boxes", {})) for number, line in found]


def _boxes(where: str, given: Any) -> Boxes:
    if not isinstance(given, dict):
        raise InterpError(f'{where}: give an object like {{"ball": [0, 0, 32, 32]}}')
    for name, box in given.items():
        whole = isinstance(box, list) and len(box) == 4 and all(type(edge) is int and edge >= 0 for edge in box)
        if not whole or box[0] >= box[2] or box[1] >= box[3] or name in NAMED:
            raise InterpError(
                f"{where}: {name!r} is {box}: give another name than {' and '.join(NAMED)}, and whole pixels [left, top, right, "
                "bottom] with left below right and top below bottom"
            )
    return {name: tuple(box) for name, box in given.items()}


def _side(where: str, given: Any, folder: Path, place: int, noise: int, config: AnalysisConfig) -> Problem:
    if not isinstance(given, dict):
        raise InterpError(f'{where}: give an object with a \'prompt\', like {{"prompt": "a red ball"}}')
    call = inputs.keywords(where, given, folder, settings_of(config))
    return Problem("own", call, call.pop("seed", noise), place, source=where)
