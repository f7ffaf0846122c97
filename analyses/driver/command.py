"""Between a configuration and a command line: option names, parsing of their text, and the line that repeats a run."""

from __future__ import annotations

import shlex
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from cos_interp.analyses.driver.saying import EMPTY, Assignment, assignments
from cos_interp.analyses.driver.settings import AnalysisConfig

# settings whose option on the command line has another name
FLAGS = {"pair_kinds": "--pair-kind", "num_inference_steps": "--num-steps", "guidance_scale": "--guidance", "span": "--range"}


def flag(field: str) -> str:
    return FLAGS.get(field, f"--{field.replace('_', '-')}")


def command_line(analysis: str, config: AnalysisConfig) -> str:
    """``cos analyze ...`` with every setting that differs from its default, and with another model what its pipeline decides."""
    values, defaults = config.model_dump(mode="json"), type(config)().model_dump(mode="json")
    parts = ["cos", "analyze", analysis]
    for key, value in values.items():
        if value == defaults[key] and not (key in config.OWN and config.model != "organism"):
            continue
        if isinstance(value, bool):
            parts.append(flag(key) if value else f"--no-{flag(key)[2:]}")
        else:
            parts += [flag(key), as_text(value)]
    return shlex.join(parts)


def as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def integers(text: str) -> tuple[int, ...]:
    """``0,4,8`` or ``0:8`` or ``0:8:2``."""
    try:
        parts = [int(part) for part in text.split(":" if ":" in text else ",")]
        found = tuple(range(*parts)) if ":" in text else tuple(parts)
    except (ValueError, TypeError):
        raise ValueError(f"{text!r}: give numbers like 0,4,8 or a range like 0:8 or 0:8:2") from None
    return _some(text, found)


def floats(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r}: give numbers like 0.5,1") from None


def words(text: str) -> tuple[str, ...]:
    """``maze,place``. ValueError where nothing is said."""
    return _some(text, tuple(part.strip() for part in text.split(",") if part.strip()))


def _assignments(text: str) -> tuple[Assignment, ...]:
    return _some(text, assignments(text))


def _some(text: str, read: tuple[Any, ...]) -> tuple[Any, ...]:
    """ValueError where nothing was read: an empty variable of a shell would pass for the default."""
    if not read:
        raise ValueError(f"{text!r} {EMPTY}")
    return read


def reader(annotation: Any) -> Callable[[str], Any] | None:
    """How the text of an option becomes the value of a field; None when typer itself can read it."""
    options = [a for a in typing.get_args(annotation) if a is not types.NoneType]
    if typing.get_origin(annotation) in (types.UnionType, typing.Union) and len(options) == 1:
        return reader(options[0])
    if typing.get_origin(annotation) is tuple:
        kinds: dict[Any, Callable[[str], Any]] = {int: integers, float: floats, Assignment: _assignments}
        return kinds.get(typing.get_args(annotation)[0], words)
    return None


def explain(error: Mapping[str, Any]) -> str:
    """One line for one of pydantic's errors, in terms of the command line."""
    field = str(error["loc"][0]) if error["loc"] else ""
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{flag(field)} {as_text(error.get('input')) or repr('')}: {message}" if field else message
