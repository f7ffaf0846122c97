"""Decoded steps of videos that another program made, in the layouts that people have.

``<split>/<task>/<00000>_steps/step_000.mp4``, beside it ``<00000>_noise_schedule.json`` and ``<00000>.mp4``;
``<name>/steps/step_000.mp4``, beside it ``noise_schedule.json`` and ``generated.mp4``;
``checkpoint-<k>/<split>/<task>/<00000>.mp4``, one folder a step (or a checkpoint of training);
``<split>/<task>/<00000>.mp4``, final videos alone.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cos_interp.interp.errors import InterpError

STEP = re.compile(r"step_?0*(\d+)")
GENERATED, TRUTH = "generated.mp4", "ground_truth.mp4"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
LAYOUTS = (
    "<split>/<task>/<00000>_steps/step_000.mp4, steps/step_000.mp4, checkpoint-<k>/<split>/<task>/<00000>.mp4, or "
    "<split>/<task>/<00000>.mp4"
)


@dataclass(frozen=True)
class Step:
    """One decoded step. ``sigma`` and ``timestep`` are those of its schedule; None where there is none."""

    step: int
    path: Path
    sigma: float | None = None
    timestep: float | None = None


@dataclass(frozen=True)
class Sample:
    """One generated video. ``key``: its relative path without ending, as the benchmark names it; ``final``: None where only
    steps are there, as with checkpoints, whose last is the final video. Without steps there is a final video alone.
    ``scheduled``: the steps that its noise schedule lists. ``without``: what other samples of its folder have and it has not, in
    words; ``ended``: whether its final video is there, as the others'; ``place``: the step of a final video alone."""

    key: str
    steps: tuple[Step, ...]
    final: Path | None = None
    scheduled: tuple[int, ...] = ()
    without: str = ""
    ended: bool = True
    place: int = 0

    @property
    def task(self) -> str:
        """The folder that it lies in: the benchmark's task."""
        return Path(self.key).parent.name or "videos"


def lacking(sample: Sample) -> str:
    """What of a sample's steps is not there, in words; nothing where all is. Checkpoints may have any numbers.

    >>> at = lambda k: Step(k, Path(f"step_{k:03d}.mp4"))
    >>> lacking(Sample("a", (at(0), at(1), at(3)))), lacking(Sample("a", (at(0),), None, (0, 1)))
    ('step 2 is missing', 'step 1 of its noise schedule is missing')
    """
    numbers = {step.step for step in sample.steps if STEP.fullmatch(step.path.stem)}
    if not numbers:
        return sample.without
    gaps = {
        "": set(range(max(numbers))) - numbers,
        " of its noise schedule": {k for k in sample.scheduled if k > max(numbers)},
    }
    said = [f"step {', '.join(map(str, sorted(found)))}{of} is missing" for of, found in gaps.items() if found]
    unknown = sorted(numbers - set(sample.scheduled)) if sample.scheduled else []
    said += [f"its noise schedule has no step {', '.join(map(str, unknown))}"] if unknown else []
    return "; ".join([*said, *([sample.without] if sample.without else [])])


def find(folder: Path) -> tuple[Sample, ...]:
    """All samples below a folder, by key. InterpError where there is none in any layout, or where steps are in two.

    Only where there are no steps in any are all videos taken, as final ones. Beside steps those are that lie where the others'
    final videos do.
    """
    if not folder.is_dir():
        raise InterpError(f"{folder} is no folder: it must hold {LAYOUTS}")
    found = {name: read(folder) for name, read in (("steps", _steps), ("checkpoints", _checkpoints))}
    held = [samples for samples in found.values() if samples] or [samples for samples in [_videos(folder)] if samples]
    if len(held) != 1:
        how = "holds no videos" if not held else "mixes steps and checkpoints: give one of its folders"
        raise InterpError(f"{folder} {how}; the layouts are {LAYOUTS}")
    return tuple(sorted(_beside_others(held[0]), key=lambda sample: sample.key))


def _beside_others(samples: list[Sample]) -> list[Sample]:
    """With what each lacks that others have: its final video, or the last steps that stand for it; its steps; a checkpoint."""
    finals = any(sample.final is not None for sample in samples)
    numbers = sorted({step.step for sample in samples for step in sample.steps})
    return [replace(sample, **_held_against(sample, finals, numbers)) for sample in samples]


def _held_against(sample: Sample, finals: bool, numbers: list[int]) -> dict[str, Any]:
    if not sample.steps:
        return {"without": "its steps are missing", "place": numbers[-1] + 1} if numbers else {}
    if finals:
        return {} if sample.final is not None else {"without": "the final video is missing", "ended": False}
    held = {step.step for step in sample.steps}
    if sample.scheduled:  # it says itself how many there are
        return {"ended": max(sample.scheduled) <= max(held)}
    checkpoints = not any(STEP.fullmatch(step.path.stem) for step in sample.steps)
    gone = [k for k in numbers if k not in held and (checkpoints or k > max(held))]  # gaps within steps are told of all
    what = "checkpoint" if checkpoints else "step"
    said = f"{what} {', '.join(map(str, gone))}, which others have, is missing" if gone else ""
    return {"without": said, "ended": numbers[-1] in held}


def _videos(folder: Path) -> list[Sample]:
    return [Sample(path.relative_to(folder).with_suffix("").as_posix(), (), path) for path in sorted(folder.rglob("*.mp4"))]


def _steps(folder: Path) -> list[Sample]:
    made = []
    for place in sorted({path.parent for path in folder.rglob("*.mp4")}):
        inside = place.name == "steps"
        if not inside and not place.name.endswith("_steps"):
            continue
        stem = place.parent if inside else place.with_name(place.name.removesuffix("_steps"))
        final = stem / GENERATED if inside else stem.with_name(f"{stem.name}.mp4")
        schedule = stem / "noise_schedule.json" if inside else stem.with_name(f"{stem.name}_noise_schedule.json")
        within = stem.is_relative_to(folder) and stem != folder  # else the folder itself was given
        key = stem.relative_to(folder).as_posix() if within else stem.resolve().name
        listed = _schedule(schedule)
        made.append(Sample(key, _of_folder(place, listed), final if final.is_file() else None, tuple(listed)))
    return made + _alone(folder, made)


def _alone(folder: Path, made: list[Sample]) -> list[Sample]:
    """Final videos without steps, beside samples with both: as deep in the folder, or called as theirs."""
    finals = {sample.final for sample in made if sample.final is not None}
    depths = {len(path.relative_to(folder).parts) for path in finals if path.name != GENERATED and path.is_relative_to(folder)}
    taken = finals | {step.path for sample in made for step in sample.steps}
    found = []
    for path in sorted(set(folder.rglob("*.mp4")) - taken):
        whole = path.parent if path.name == GENERATED else path.with_suffix("")
        called = any(final.name == GENERATED for final in finals)
        deep = path.name != TRUTH and len(path.relative_to(folder).parts) in depths
        if called if path.name == GENERATED else deep:
            found.append(Sample(whole.relative_to(folder).as_posix(), (), path))
    return found


def _of_folder(place: Path, schedule: dict[int, dict[str, Any]]) -> tuple[Step, ...]:
    numbered: dict[int, Path] = {}
    for path in sorted(place.glob("*.mp4")):
        if (found := STEP.fullmatch(path.stem)) is None:
            raise InterpError(f"{path} lies among steps and is called otherwise: name it step_000.mp4, or move it away")
        if (other := numbered.setdefault(int(found[1]), path)) is not path:
            raise InterpError(f"{place} has step {found[1]} twice, as {other.name} and {path.name}: take one of them away")
    return tuple(Step(k, path, **schedule.get(k, {})) for k, path in sorted(numbered.items()))


def _schedule(path: Path) -> dict[int, dict[str, Any]]:
    """``[{"step", "timestep", "sigma"}]`` by step; nothing where the file is not there. InterpError where it is another thing."""
    if not path.is_file():
        return {}
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        found = {int(entry["step"]): {k: float(entry[k]) for k in ("sigma", "timestep") if k in entry} for entry in listed}
    except (ValueError, KeyError, TypeError) as error:
        raise InterpError(f"{path} is no noise schedule ({error}): it must be a list of {{step, timestep, sigma}}") from error
    if not found:
        raise InterpError(f"{path} lists no step: take it away where the noise levels are not known")
    if not all(math.isfinite(value) for entry in found.values() for value in entry.values()):
        raise InterpError(f"{path} holds a number that is not finite")
    return found


def _checkpoints(folder: Path) -> list[Sample]:
    places = {int(m[1]): path for path in sorted(folder.iterdir()) if path.is_dir() and (m := CHECKPOINT.fullmatch(path.name))}
    made: dict[str, list[Step]] = {}
    for k, place in sorted(places.items()):
        for path in sorted(place.rglob("*.mp4")):
            made.setdefault(path.relative_to(place).with_suffix("").as_posix(), []).append(Step(k, path))
    return [Sample(key, tuple(steps)) for key, steps in made.items()]


# --- writing ---------------------------------------------------------------------------------------------------------

WRITTEN = ("sensenova", "vbvr-checkpoints")


def places(layout: str, folder: Path, key: str, steps: int) -> tuple[list[Path], Path | None, Path | None]:
    """Where the steps of a sample go, its final video, and its schedule; the last two None in a layout without.

    In ``vbvr-checkpoints`` the final video is the last checkpoint, so ``steps + 1`` paths are given.
    """
    if layout == "vbvr-checkpoints":
        return [folder / f"checkpoint-{k}" / f"{key}.mp4" for k in range(steps + 1)], None, None
    paths = [folder / f"{key}_steps" / f"step_{k:03d}.mp4" for k in range(steps)]
    return paths, folder / f"{key}.mp4", folder / f"{key}_noise_schedule.json"
