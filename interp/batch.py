"""Single videos and batches of them: joining calls, cutting long lists into parts, and what a call of several rows may say."""

from __future__ import annotations

import ast
import contextlib
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from cos_interp.interp.errors import InterpError
from cos_interp.interp.families.sites import EXPERTS
from cos_interp.interp.identity import glance
from cos_interp.interp.pictures import as_picture
from cos_interp.interp.scalars import has_numbers, lacking, whole

PICTURES = ("image", "last_image")
PROMPTS = ("prompt", "negative_prompt", "prompt_2", "negative_prompt_2")
BY_ROW = ("prompt", "negative_prompt", *PICTURES, "seed")

SEEDS = (-(2**63), 2**64 - 1)  # that PyTorch takes
NOISES = 2**32  # its CPU generator reads the lower 32 bits of a seed: -1 draws as 2**32 - 1, 2**32 as 0

CALLBACK = "callback_on_step_end"
UNTOLD = (AttributeError, NameError, TypeError)  # where a pipeline meets what it was not written for

T = TypeVar("T")


def joined(calls: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Pipeline keywords of single videos as those of one batch; one alone stays as it is. InterpError where they differ in what a
    batch has once."""
    if len(calls) == 1:
        return calls[0]
    for key in {key for call in calls for key in call} - set(BY_ROW):
        values = [call.get(key) for call in calls]
        if all(_plain(value) for value in values) and len(set(values)) > 1:
            raise InterpError(f"one batch of calls whose {key} differ, {values}: they must be the same")
    each = {key: [call[key] for call in calls] for key in BY_ROW if calls[0].get(key) is not None}
    return {**calls[0], **each}


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive parts of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


# --- the keywords of a call --------------------------------------------------------------------------------------------


def rows_of(call: Mapping[str, Any]) -> int:
    """Videos of a call: one a prompt, times ``num_videos_per_prompt``."""
    prompt = call.get("prompt")
    embedded = [len(v) for name, v in call.items() if name.startswith("prompt_embeds") and isinstance(v, Tensor)]
    return (len(prompt) if isinstance(prompt, list) else max(embedded, default=1)) * each_prompt(call)


def each_prompt(call: Mapping[str, Any]) -> int:
    """Videos of every prompt."""
    return call.get("num_videos_per_prompt") or 1


@contextlib.contextmanager
def told_of(pipe: Any, call: Mapping[str, Any]) -> Iterator[None]:
    """What the libraries say where a pipeline's code is for one video only, with the remedy; errors of hooks stay as they are."""
    try:
        yield
    except (AssertionError, IndexError, RuntimeError, ValueError, *UNTOLD) as error:
        rows, frames = rows_of(call), traceback.extract_tb(error.__traceback__)
        if isinstance(error, NameError) and (package := _not_installed(str(error.name), frames[-1].filename)):
            raise InterpError(
                f"{type(pipe).__name__} needs the package {package}, which is not installed: pip install {package}"
            ) from error
        of_a_hook = any(Path(frame.filename).name in ("hooking.py", "patching.py") for frame in frames)
        if isinstance(error, InterpError) or of_a_hook:
            raise
        said = (str(error).strip() or repr(error)).splitlines()[0]
        if rows == 1 and "diffusers" in Path(frames[-1].filename).parts and isinstance(error, UNTOLD):
            asked = ", ".join(key for key, value in call.items() if value is not None)
            raise InterpError(
                f"{type(pipe).__name__} with {type(pipe.scheduler).__name__} cannot run this ({frames[-1].name}: {said}); "
                f"asked were {asked}: leave out what is not needed, as timesteps, sigmas or latents, or load another scheduler"
            ) from error
        if rows == 1:
            raise
        raise InterpError(
            f"{type(pipe).__name__} does not make {rows} videos in one run ({said}): make a run for each"
        ) from error


def _not_installed(name: str, file: str) -> str | None:
    """The package of which a file of diffusers would import a name: below ``if is_torchvision_available():``."""
    guards = ast.walk(ast.parse(Path(file).read_text())) if Path(file).is_file() else ()
    for guard in (node for node in guards if isinstance(node, ast.If)):
        asked = re.fullmatch(r"is_(\w+)_available\(\)", ast.unparse(guard.test))
        imports = [made for made in guard.body if isinstance(made, ast.Import | ast.ImportFrom)]
        if asked and name in {(alias.asname or alias.name).split(".")[0] for made in imports for alias in made.names}:
            return asked[1]
    return None


def each_video(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call of ``num_videos_per_prompt`` as one of lists, in which every prompt and picture stands as often."""
    count = each_prompt(call)
    if count == 1 or call.get("prompt") is None:
        return dict(call)
    made = {key: value for key, value in call.items() if key != "num_videos_per_prompt"}
    for key in (*PROMPTS, *PICTURES):
        if call.get(key) is not None:
            made[key] = [one for one in (call[key] if isinstance(call[key], list) else [call[key]]) for _ in range(count)]
    listed = made["prompt"]
    for key in (key for key in PICTURES if isinstance(made.get(key), list) and len(made[key]) == count < len(listed)):
        made[key] = made[key] * (len(listed) // count)
    return made


def single_pictures(call: Mapping[str, Any]) -> dict[str, Any]:
    """The pictures of a call, each as :func:`cos_interp.interp.pictures.as_picture` makes it, a list of one as that one.

    InterpError for what is no picture, and for lists that do not fit the prompts.
    """
    prompts = rows_of(call) // each_prompt(call)
    made: dict[str, Any] = {}
    for name in PICTURES:
        pictures = call.get(name)
        if pictures is None:
            continue
        if not isinstance(pictures, list):
            made[name] = as_picture(pictures, name)
            continue
        if len(pictures) != prompts:
            raise InterpError(f"{name}: {len(pictures)} pictures for {prompts} prompt(s): give as many prompts, one a picture")
        if prompts > 1 and name != "image" and not isinstance(call.get("image"), list):
            raise InterpError(f"{name} is a list and image is none: give one of each a row")
        each = [as_picture(picture, f"{name}[{place}]") for place, picture in enumerate(pictures)]
        made[name] = each if prompts > 1 else each[0]
    return made


def single_calls(call: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The keywords of each video of a call that makes several."""
    count, each = rows_of(call), each_prompt(call)
    one = {"num_videos_per_prompt": 1} if "num_videos_per_prompt" in call else {}
    return [
        {**call, **{name: _of_row(name, value, row, count, each) for name, value in call.items()}, **one} for row in range(count)
    ]


def _of_row(name: str, value: Any, row: int, count: int, each: int) -> Any:
    """What a keyword of a call of ``count`` videos, ``each`` of them of one prompt, says of one of them."""
    if isinstance(value, list) and name in (*PROMPTS, *BY_ROW, "generator"):
        return value[row * len(value) // count]
    if isinstance(value, Tensor) and name == "latents":
        return value[row : row + 1]
    if isinstance(value, Tensor) and of_texts(name) and len(value) * each == count:
        return value[row // each : row // each + 1]
    return value


def of_texts(name: str) -> bool:
    """Whether a keyword gives texts that are encoded already, or which of their tokens count."""
    return "embeds" in name or "attention_mask" in name


def check_latents(call: Mapping[str, Any]) -> None:
    """InterpError for latents of the caller's own that are no tensor of floats, or have other rows than the call makes videos."""
    latents, rows = call.get("latents"), rows_of(call)
    if latents is None:
        return
    if not has_numbers(latents) or not latents.is_floating_point() or latents.ndim < 2:
        raise InterpError(f"latents: {described(latents)} was given: give a tensor of floats, one row a video")
    if len(latents) != rows:
        raise InterpError(f"latents: {len(latents)} row(s) for {rows} video(s): give one a video")


def described(value: Any) -> str:
    """What was given in the place of latents, in words."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    kind = f"{lack} " if (lack := lacking(value)) else ""
    return f"a {kind}tensor of {value.dtype}, shape {list(value.shape)}"


def checked_seeds(seeds: Sequence[Any], said: str) -> list[int]:
    """Seeds as whole numbers. InterpError, begun by ``said``, for what is none, and for two that draw one noise unasked."""
    found = [seed for one in seeds if (seed := whole(one)) is not None and SEEDS[0] <= seed <= SEEDS[1]]
    if len(found) < len(seeds):
        raise InterpError(f"{said}: give a whole number of 64 bits, or a list with one a video")
    if len({seed % NOISES for seed in found}) < len(set(found)):
        raise InterpError(f"{said}: two of these draw one noise, for PyTorch's generator reads their lower 32 bits: give others")
    return found


def several_seeds(seeds: Any, who: str) -> list[int]:
    """Two seeds at least, each another one, of how many there are or of a list. InterpError, for ``who`` needs them, else."""
    if (count := whole(seeds)) is not None:
        found = list(range(count))
    elif isinstance(seeds, Iterable) and not isinstance(seeds, (str, bytes, Mapping)):
        given = list(seeds)
        found = checked_seeds(given, f"seeds={given!r}")
    else:
        raise InterpError(f"seeds={seeds!r}: give their number, or a list of them, as whole numbers")
    if len(set(found)) < max(2, len(found)):
        raise InterpError(f"{who} needs two seeds or more, each another one, got {found}")
    return found


def generators(seed: Any, rows: int, listed: bool) -> torch.Generator | list[torch.Generator]:
    """The noise of a call: one generator, or one a row, so that a row does not depend on its neighbours.

    ``listed``: the prompts are a list, and so the generators are. InterpError for another number of seeds than rows.
    """
    several = isinstance(seed, (Sequence, np.ndarray, Tensor)) and not isinstance(seed, (str, bytes)) and np.ndim(seed) == 1
    seeds = checked_seeds(list(seed) if several else [seed], f"seed={seed!r}")
    if len(seeds) != rows:
        raise InterpError(f"{len(seeds)} seed(s) for {rows} video(s): give a list with one seed a video")
    made = [torch.Generator("cpu").manual_seed(one) for one in seeds]
    return made if listed or rows > 1 else made[0]


def watched(callback: Any) -> dict[str, Any]:
    """The keywords of a user's callback, which may look and not touch. One of diffusers' kind says which tensors it is shown."""
    shown = {f"{CALLBACK}_tensor_inputs": callback.tensor_inputs} if hasattr(callback, "tensor_inputs") else {}
    return {CALLBACK: reading_only(callback), **shown}


def reading_only(callback: Any) -> Callable[..., Any]:
    """A user's ``callback_on_step_end``, which may look and not touch: edits are hooks, which a recording knows of.

    InterpError for what is no function, and in the run when it changes a tensor, returns one of its own, or sets something of the
    pipeline or of its scheduler.
    """
    if not callable(callback):
        raise InterpError(
            f"callback_on_step_end is {type(callback).__name__}: give a function of (pipe, step, timestep, tensors)"
        )

    def called(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        before = {name: value.clone() for name, value in tensors.items() if isinstance(value, Tensor)}
        state = _state(pipe)
        returned = callback(pipe, step, timestep, tensors)
        if not isinstance(returned, dict | None):
            raise InterpError(f"callback_on_step_end returned {type(returned).__name__} at step {step}: a dictionary, or nothing")
        after = {**tensors, **(returned or {})}
        changed = [name for name, value in after.items() if not _same(before.get(name), value)] + _differing(state, _state(pipe))
        if changed:
            raise InterpError(
                f"callback_on_step_end changed {changed[0]} at step {step}: edit it by a hook, "
                f'run_with_hooks(fwd_hooks=[("hook_x_t @ step={step + 1}", function)], ...)'
            )
        return returned or {}

    return called


def _state(pipe: Any) -> dict[str, Any]:
    """What a loop reads from its pipeline, its scheduler and its weights between two steps."""
    own = {f"pipe.{name}": value for name, value in vars(pipe).items() if name.startswith("_") and _plain(value)}
    for name, value in vars(pipe.scheduler).items():
        inner = value if isinstance(value, list | tuple) else [value]
        if all(isinstance(one, Tensor) or _plain(one) for one in inner):
            own |= {f"pipe.scheduler.{name}": [one.clone() if isinstance(one, Tensor) else one for one in inner]}
    modules = {name: part for name in EXPERTS if (part := getattr(pipe, name, None)) is not None}
    return own | {"the weights": glance(pipe, modules)}


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        return before.shape == after.shape and torch.equal(before, after)
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(_same, before, after))
    return before is after or (_plain(before) and before == after)


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [name for name in {**before, **after} if not _same(before.get(name), after.get(name))]
