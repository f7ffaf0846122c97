"""Words of the command line that stand for sizes, amounts of memory and arguments of a call."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NewType

Assignment = NewType("Assignment", str)  # key=value
EMPTY = "says nothing: leave the option out, or say something"
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
OPTIONS = {
    "num_inference_steps": "--num-steps", "guidance_scale": "--guidance", "height": "--size", "width": "--size",
    "num_frames": "--num-frames", "negative_prompt": "--negative-prompt", "generator": "--seed", "seed": "--seed",
}  # fmt: skip


ITSELF = (
    "prompt",
    "image",
    "latents",
    "output_type",
    "return_dict",
    "callback_on_step_end",
)  # which an experiment says of each run
OBJECTS = ("attention_kwargs", "cross_attention_kwargs", "joint_attention_kwargs")  # arguments that are mappings
NUMBERS = ("guidance_scale", "guidance_scale_2", "true_cfg_scale", "frame_rate", "fps")


def size(text: str) -> dict[str, int]:
    """``832x480`` as width and height. ValueError for anything else.

    >>> size("832x480")
    {'width': 832, 'height': 480}
    """
    found = re.fullmatch(r"([1-9]\d*)\s*[xX×]\s*([1-9]\d*)", text.strip())
    if not found:
        raise ValueError(f"{text!r}: give WIDTHxHEIGHT in pixels, like 832x480")
    return {"width": int(found[1]), "height": int(found[2])}


def amount(text: str) -> int:
    """Bytes of ``60GB``, ``1.5 TiB``. ValueError for anything else.

    >>> amount("60GB"), amount("1.5 GiB")
    (60000000000, 1610612736)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKmMgGtT]?i?[bB])", text.strip())
    if not found or float(found[1]) == 0:
        raise ValueError(f"{text!r}: give an amount like 60GB or 500MB")
    return int(float(found[1]) * UNITS[found[2].upper()])


def assignments(text: str) -> tuple[Assignment, ...]:
    """``a=1,b=[1,2],c=some text``, split at the commas that stand before a name and an equals sign."""
    return tuple(Assignment(part.strip()) for part in re.split(r",(?=\s*[A-Za-z_]\w*\s*=)", text) if part.strip())


def keywords(said: Sequence[str]) -> dict[str, Any]:
    """The arguments that assignments say: JSON where the value is JSON, else text. ValueError for what is no assignment, for a
    key that stands there twice, for one that has an option of its own, and for one that each run has of its own.

    >>> keywords(["max_sequence_length=64", "prompt_2=a red ball", "sigmas=[1.0, 0.5]"])
    {'max_sequence_length': 64, 'prompt_2': 'a red ball', 'sigmas': [1.0, 0.5]}
    """
    found: dict[str, Any] = {}
    for one in said:
        key, equals, value = (part.strip() for part in one.partition("="))
        if not equals or not key.isidentifier():
            raise ValueError(f"{one!r}: give key=value, the key an argument of the pipeline's call")
        if key in OPTIONS:
            raise ValueError(f"{one!r}: say it with {OPTIONS[key]}")
        if key in ITSELF:
            raise ValueError(f"{one!r}: an experiment says itself what {key} is in each of its runs: leave it out")
        if key in found:
            raise ValueError(f"{key} stands there twice")
        found[key] = _value(value)
        if problem := unfit(key, found[key]):
            raise ValueError(f"{one!r}: {problem}")
    return found


def unfit(key: str, value: Any) -> str | None:
    """Why an argument of a pipeline's call cannot have a value that stands for all runs, in words; None where it can."""
    if value is None:
        return None
    if key in OBJECTS and not isinstance(value, dict):
        return f'give an object, like {key}={{"scale": 0.5}}'
    if key in NUMBERS and type(value) not in (int, float):
        return f"give a number, like {key}=3.5"
    if re.fullmatch("num_.*_per_prompt", key) and value != 1:
        return "each run is of one video: leave it out; options like --noises, --seeds and --items say how many there are"
    return None


def _value(text: str) -> Any:
    literal = {"None": None, "True": True, "False": False}
    try:
        return literal[text] if text in literal else json.loads(text)
    except ValueError:
        return text
