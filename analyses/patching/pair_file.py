"""Pairs of the user's own: a JSONL file, a line ``{"clean": {"prompt": ..., "image": path, "seed": 0}, "corrupt": {...}}``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from cos_interp.analyses.kit.problems import Problem
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.interp.errors import InterpError

SIDES = ("clean", "corrupt")
EXAMPLE = '{"clean": {"prompt": "a red ball"}, "corrupt": {"prompt": "a blue ball"}}'
SETTINGS = {"num_inference_steps": "--num-steps", "guidance_scale": "--guidance"}  # of the run, not of a side
OWN = ("prompt", "negative_prompt", "image", "seed")  # what may differ between the sides

Sides = tuple[Problem, Problem]  # clean, corrupt


def read(path: Path, seed: int) -> list[Sides]:
    """The pairs of a file. A side without a ``seed`` gets the pair's own, which its other side shares; further keys go to the
    pipeline. Images are found relative to the file. InterpError names the line that does not fit, and what would."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InterpError(f"--pair-file {path}: {getattr(error, 'strerror', None) or error}") from error
    found = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise InterpError(f"--pair-file {path} has no lines: give one pair a line, like {EXAMPLE}")
    return [_pair(path, number, line, place, seed) for place, (number, line) in enumerate(found)]


def _pair(path: Path, number: int, line: str, place: int, seed: int) -> Sides:
    where = f"--pair-file {path}, line {number}"
    try:
        given = json.loads(line)
    except json.JSONDecodeError as error:
        raise InterpError(f"{where} is not JSON ({error}): write it like {EXAMPLE}") from error
    if not isinstance(given, dict) or set(given) != set(SIDES):
        held = ", ".join(given) if isinstance(given, dict) else type(given).__name__
        raise InterpError(f"{where} must have exactly the sides clean and corrupt, it has {held or 'none'}: {EXAMPLE}")
    noise = seed_for("noise", seed, "pairs", place)
    clean, corrupt = (_side(f"{where}, {name}", given[name], path.parent, place, noise) for name in SIDES)
    if clean == corrupt:
        raise InterpError(f"{where}: both sides are equal; give them another prompt, image or seed")
    unlike = [key for key in {**clean.call, **corrupt.call} if key not in OWN and clean.call.get(key) != corrupt.call.get(key)]
    if unlike:
        raise InterpError(f"{where}: {unlike[0]} differs between the sides; only {', '.join(OWN)} may")
    return clean, corrupt


def _side(where: str, given: Any, folder: Path, place: int, noise: int) -> Problem:
    if not isinstance(given, dict) or not isinstance(given.get("prompt"), str):
        raise InterpError(f'{where}: give an object with a \'prompt\', like {{"prompt": "a red ball"}}')
    call = {key: value for key, value in given.items() if key != "seed"}
    for key, option in SETTINGS.items():
        if key in call:
            raise InterpError(f"{where}: {key} is the same for all runs; give {option}")
    seed = given.get("seed", noise)
    if type(seed) is not int or seed < 0:
        raise InterpError(f"{where}: seed {seed!r} must be a whole number from 0 on")
    if "image" in call:
        call["image"] = _image(where, folder, call["image"])
    return Problem("own", call, seed, place)


def _image(where: str, folder: Path, name: Any) -> Image.Image:
    if not isinstance(name, str):
        raise InterpError(f"{where}: image {name!r} must be the path of a picture, relative to the file")
    try:
        return Image.open(folder / name).convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise InterpError(f"{where}: image {name!r} cannot be read: {error}") from error
