"""A call of the pipeline, looked at before anything is computed: keywords that it has, needs, and sizes that fit a machine."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from cos_interp.interp.batch import rows_of
from cos_interp.interp.errors import InterpError
from cos_interp.interp.limits import MOST_STEPS, host_memory
from cos_interp.interp.run.guidance import KEY, by_guider
from cos_interp.interp.scalars import finite, whole

OURS = {
    "fwd_hooks": "give them to run_with_hooks(fwd_hooks=[...]), or use `with model.hooks(fwd_hooks=[...]):` around this call",
    **dict.fromkeys(("names", "branches", "tokens", "reduce", "max_bytes"), "it belongs to run_with_cache"),
}
OUTPUT_TYPES = ("np", "pt", "pil", "latent")
ONE_ROW = ("Kandinsky5I2V", "EasyAnimateInpaint")  # pipelines whose loop mixes the rows of a batch, or has one mask for it
TEXTS = ("prompt", "negative_prompt")
SIZES = ("height", "width", "num_frames")
FRAMES = ("video_length", "frames")  # what some pipelines call num_frames
COUNTS = (*SIZES, "num_inference_steps", "num_videos_per_prompt", "max_sequence_length")


def checked_output_type(asked: Any) -> str:
    """The form in which a run shows its video, ``"np"`` where nothing is asked; InterpError for one that there is not."""
    if asked is None or asked in OUTPUT_TYPES:
        return asked or OUTPUT_TYPES[0]
    raise InterpError(f"output_type={asked!r}: there are {', '.join(OUTPUT_TYPES)}")


def check_call(pipe: Any, call: Mapping[str, Any]) -> None:
    """InterpError for keywords that the pipeline does not take or lacks, and for a video that no memory here holds."""
    if problem := unfit(pipe, call):
        raise InterpError(problem)


def unfit(pipe: Any, call: Mapping[str, Any]) -> str | None:
    """What is wrong with the keywords of a call, in words; None when they fit."""
    parameters, name = keywords_of(pipe), type(pipe).__name__
    if wrong := unknown_keyword(pipe, call):
        return wrong
    for key, parameter in parameters.items():
        if key not in call and parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD:
            return f"{name} needs {key!r}, which is missing"
    if wrong := _no_text(call) or _no_number(call, parameters) or _too_large(call):
        return wrong
    if one_row(pipe) and (rows := rows_of(call)) > 1:
        return f"{rows} videos in one run: {name} makes others in a batch than alone: make a run for each"
    return None


def one_row(pipe: Any) -> bool:
    """Whether a pipeline makes one video a run, and no batch."""
    return type(pipe).__name__.startswith(ONE_ROW)


def unknown_keyword(pipe: Any, call: Iterable[str]) -> str | None:
    """The first keyword that the pipeline's call does not take, in words, with what it may have been meant for."""
    parameters = keywords_of(pipe)
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    for key in own_words(pipe, dict.fromkeys(call)):
        if key not in parameters and not (key == KEY and by_guider(pipe)):
            return f"{type(pipe).__name__} takes no {key!r}: {_instead(key, list(parameters))}"
    return None


def own_words(pipe: Any, call: Mapping[str, Any]) -> dict[str, Any]:
    """A call with ``num_frames`` under the name that the pipeline has for it. InterpError where it stands under both."""
    parameters = keywords_of(pipe)
    own = next((name for name in FRAMES if name in parameters), None)
    if "num_frames" not in call or "num_frames" in parameters or own is None:
        return dict(call)
    if own in call:
        raise InterpError(f"num_frames and {own} are the same to {type(pipe).__name__}: give one of them")
    return {own if key == "num_frames" else key: value for key, value in call.items()}


def keywords_of(pipe: Any) -> dict[str, inspect.Parameter]:
    """What the call of a pipeline takes, by name, in its order."""
    signature = inspect.signature(type(pipe).__call__).parameters
    return {key: parameter for key, parameter in signature.items() if key != "self"}


def _instead(key: str, there: list[str]) -> str:
    if key in OURS:
        return OURS[key]
    near = difflib.get_close_matches(key, there, 3)
    return f"did you mean {' or '.join(near)}?" if near else f"it takes {', '.join(there)}"


def _no_text(call: Mapping[str, Any]) -> str | None:
    for key in TEXTS:
        given = call.get(key)
        texts = given if isinstance(given, list) else [given]
        if given is not None and (not texts or not all(isinstance(text, str) for text in texts)):
            return f"{key}={given!r}: give a text, or a list of texts, one a video"
    return None


def _no_number(call: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> str | None:
    """A count that is none, or a guidance that is no number: pipelines go on with some of these and give no video."""
    optional = [key for key, parameter in parameters.items() if parameter.default is None]
    for key, value in call.items():
        if key in COUNTS and value is not None and ((count := whole(value)) is None or count < 1):
            return f"{key}={value!r}: give a whole number of at least 1"
        if key == "num_inference_steps" and value is not None and value > MOST_STEPS:
            return f"{key}={value!r} is more than {MOST_STEPS}, ten times what any scheduler was trained with: give fewer"
        if key.startswith("guidance_scale") and finite(value) is None and not (value is None and key in optional):
            return f"{key}={value!r}: give a finite number{', or leave it out' if value is None else ''}"
    for key in ("timesteps", "sigmas"):
        if call.get(key) is not None and not np.size(call[key]):
            return f"{key} is empty: give one number a step"
    own_levels = any(call.get(key) is not None for key in ("timesteps", "sigmas"))
    if "num_inference_steps" in call and call["num_inference_steps"] is None and not own_levels:
        return "num_inference_steps=None: give a whole number of at least 1, or leave it out"
    return None


def _too_large(call: Mapping[str, Any]) -> str | None:
    """The pixels alone, or one head's attention among the words, as float32 against all the memory of this machine."""
    there = host_memory()
    sizes = {key: size for key in SIZES if (size := whole(call.get(key))) is not None}
    words = whole(call.get("max_sequence_length")) or 0
    if len(sizes) == len(SIZES) and (pixels := math.prod(sizes.values()) * 3 * 4) > there:
        asked, needed, instead = sizes, f"{pixels / 2**30:.0f} GiB of pixels", "ask for a smaller video"
    elif (scores := words**2 * 4) > there:
        asked, needed, instead = {"max_sequence_length": words}, f"{scores / 2**30:.0f} GiB for each head", "ask for fewer words"
    else:
        return None
    said = ", ".join(f"{key}={size}" for key, size in asked.items())
    return f"{said} takes {needed}, and this machine has {there / 2**30:.0f} GiB of memory: {instead}"
