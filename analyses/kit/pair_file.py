"""Pairs of the user's own: a JSONL file, a line ``{"clean": {"prompt": ..., "image": path, "seed": 0}, "corrupt": {...}}``.

With ``"boxes": {"ball": [left, top, right, bottom]}``, in pixels of the video, a line may name the places that matter; things
that move have a box by pixel frame, ``{"ball": {"0": [...], "8": [...]}}`` or a list with one, or null, for each. A side may
have ``expected`` and ``reference``, which a scorer is told and the model is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cos_interp.analyses.driver import inputs
from cos_interp.analyses.driver.prompt_lists import Entry
from cos_interp.analyses.driver.settings import AnalysisConfig, ScoredConfig
from cos_interp.analyses.kit.pairs import NoPair, Pair, Recorder, Side
from cos_interp.analyses.kit.problems import Problem, check_calls, judge, own_case, refuse_twice, scorer_of, settings_of
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.planning.costs import Shape
from cos_interp.tasks.scorer import Scorer

SIDES = ("clean", "corrupt")
EXAMPLE = '{"clean": {"prompt": "a red ball"}, "corrupt": {"prompt": "a blue ball"}}'
NAMED = ("all", "rest")  # groups of tokens that are no boxes
NEGATIVE = "negative_prompt"
OWN = (*inputs.TEXTS, *inputs.PICTURES, "seed")  # what may differ between the sides

Sides = tuple[Problem, Problem]  # clean, corrupt
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the video, the last two excluded
Boxes = dict[str, dict[int | None, Box]]  # name -> pixel frame, None for all, -> box


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
    scorer = scorer_of(config) if isinstance(config, ScoredConfig) else None
    clean, corrupt = (_side(f"{where}, {name}", given[name], folder, place, noise, config, scorer) for name in SIDES)
    if clean == corrupt:
        raise InterpError(f"{where}: both sides are equal; give them another prompt, image or seed")
    unlike = [key for key in {**clean.call, **corrupt.call} if key not in OWN and clean.call.get(key) != corrupt.call.get(key)]
    if unlike:
        raise InterpError(f"{where}: {unlike[0]} differs between the sides; only {', '.join(OWN)} may")
    return clean, corrupt


def recorded(recorder: Recorder, sides: Sides, solved: bool = True) -> Pair:
    """A pair of a file, recorded. NoPair where the model makes one video of both sides, where it guides one alone, and, unless
    ``solved`` is False, where it makes one that the scorer does not accept."""
    clean, corrupt = (recorder(side, name) for side, name in zip(sides, SIDES, strict=True))
    guided_alike(clean, corrupt)
    for name, side in zip(SIDES, (clean, corrupt), strict=True):
        verdict = judge(side.problem, side.recording.run.decode()[0]) if side.problem.judged and solved else None
        if verdict is not None and not verdict.solved:
            why = verdict.error or verdict.status
            raise NoPair(f"the scorer does not accept the model's own video of the {name} side: {why}")
    if torch.equal(clean.recording.run.latents, corrupt.recording.run.latents):
        raise NoPair("the model makes the same video of both sides, so there is no difference to move along")
    return Pair("own", corrupt, clean)


def of_one_noise(sides: Sides) -> Sides:
    """The sides. InterpError where they have two noises."""
    if sides[0].seed != sides[1].seed:
        raise InterpError(f"{sides[1].source}: both sides must start from one noise: give them the same seed, or none")
    return sides


def largest(found: Sequence[Sides], config: AnalysisConfig, model: HookedVideoPipeline) -> Problem:
    """The clean side of a pair whose video has the most tokens."""
    return max((clean for clean, _ in found), key=lambda side: Shape.of(model, {**config.call(), **side.call}).grid.tokens)


def stranger(found: Sequence[Sides], index: int) -> Problem | None:
    """The donor of a pair's control: the clean side of the next pair of a file that is on neither side of this one, and
    :func:`alike`, from the noise of this one's. None where there is no such pair."""
    clean, corrupt = found[index]
    for other, _ in [*found[index + 1 :], *found[:index]]:
        if other.call not in (clean.call, corrupt.call) and alike(clean, other):
            return replace(other, seed=clean.seed)
    return None


def alike(one: Problem, other: Problem) -> bool:
    """Whether what one run computes has a place in another: they are of one size, and both have a negative prompt or neither, for
    some pipelines guide where there is one."""
    made = [{k: v for k, v in side.call.items() if k not in OWN} for side in (one, other)]
    return made[0] == made[1] and (NEGATIVE in one.call) == (NEGATIVE in other.call)


def guided_alike(one: Side, other: Side) -> None:
    """NoPair where one of two runs is guided and the other is not."""
    branches = [side.recording.run.branches for side in (one, other)]
    if set(branches[0]) != set(branches[1]):
        raise NoPair(
            "one of its runs is guided and the other is not, so that they compute other things: this pipeline guides where there "
            f"is a {NEGATIVE}; give it on both sides, or on neither"
        )


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
    found = {}
    for name, said in given.items():
        by_frame = _by_frame(said)
        if not by_frame or name in NAMED or not all(map(_is_box, by_frame.values())):
            raise InterpError(
                f"{where}: {name!r} is {said}: give another name than {' and '.join(NAMED)}, and whole pixels [left, top, right, "
                'bottom] with left below right and top below bottom, or such by pixel frame, {"0": [...], "8": [...]}'
            )
        found[name] = {frame: tuple(box) for frame, box in by_frame.items()}
    return found


def _by_frame(said: Any) -> dict[int | None, Any]:
    """Boxes by pixel frame, as they were said; none for what is no such thing.

    >>> _by_frame([0, 0, 8, 8]), _by_frame({"3": [0, 0, 8, 8]}), _by_frame([None, [0, 0, 8, 8]]), _by_frame({"x": 1})
    ({None: [0, 0, 8, 8]}, {3: [0, 0, 8, 8]}, {1: [0, 0, 8, 8]}, {})
    """
    if isinstance(said, dict):
        return {int(frame): box for frame, box in said.items()} if all(frame.isdecimal() for frame in said) else {}
    if not isinstance(said, list):
        return {}
    if all(box is None or isinstance(box, list) for box in said):
        return {frame: box for frame, box in enumerate(said) if box is not None}
    return {None: said}


def _is_box(box: Any) -> bool:
    whole = isinstance(box, list) and len(box) == 4 and all(type(edge) is int and edge >= 0 for edge in box)
    return whole and box[0] < box[2] and box[1] < box[3]


def _side(
    where: str, given: Any, folder: Path, place: int, noise: int, config: AnalysisConfig, scorer: Scorer | None
) -> Problem:  # fmt: skip
    if not isinstance(given, dict):
        raise InterpError(f'{where}: give an object with a \'prompt\', like {{"prompt": "a red ball"}}')
    told = {key: value for key, value in given.items() if key not in inputs.OF_SCORER}
    call = inputs.keywords(where, told, folder, settings_of(config))
    seed = call.pop("seed", noise)
    case = None if scorer is None else own_case("own", call, Entry(where, given, folder, ""))
    return Problem("own", call, seed, place, source=where, case=case, scorer=scorer)
