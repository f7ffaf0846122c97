"""What a pipeline's own check says against a call, in words that say what was asked, how, and what to do.

Pipelines check their arguments in ``check_inputs``, whose errors name what they want and not what was given where.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

from cos_interp.interp.call import FRAMES, keywords_of
from cos_interp.interp.errors import InterpError
from cos_interp.interp.families.layouts import Dims

SIZES = ("height", "width")
EMPTY = inspect.Parameter.empty

# how a command says a keyword of the call; of any other, --set
OPTIONS = {
    **dict.fromkeys(SIZES, "--size"), **dict.fromkeys(("num_frames", *FRAMES), "--num-frames"),
    "num_inference_steps": "--num-steps", "guidance_scale": "--guidance-scale", "negative_prompt": "--negative-prompt",
}  # fmt: skip


def checked(pipe: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    """A pipeline's ``check_inputs`` whose refusals are InterpErrors that name what was given."""
    signature = inspect.signature(original)

    def check(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except InterpError:
            raise
        except (ValueError, TypeError) as error:
            given = signature.bind_partial(*args, **kwargs).arguments
            raise InterpError(refusal(pipe, given, str(error))) from error

    return check


def refused(pipe: Any, call: Mapping[str, Any]) -> str | None:
    """What the pipeline's check has against keywords that are asked of every call, in words; None where it has nothing.

    The rest of a call is not there yet (prompt, picture): what the check says of that does not count.
    """
    check = getattr(pipe, "check_inputs", None)
    if check is None or not call:
        return None
    known = {key: parameter.default for key, parameter in keywords_of(pipe).items()}
    given = {
        "prompt": "a",
        "image": Image.new("RGB", (16, 16)),
        **{key: value for key, value in known.items() if value is not None and value is not EMPTY},
        **call,
    }
    wanted = inspect.signature(check).parameters
    try:
        check(**{key: given.get(key) for key, one in wanted.items() if key in given or one.default is EMPTY})
    except Exception as error:  # of what is not there yet, any
        return refusal(pipe, call, str(error)) if _named(call, str(error)) else None
    return None


def refusal(pipe: Any, given: Mapping[str, Any], said: str) -> str:
    """The pipeline's words, and what was given of all that they name."""
    named = _named(given, said)
    asked = ", ".join(f"{key}={_brief(given[key])}" for key in named)
    options = ", ".join(dict.fromkeys(OPTIONS.get(key, f"--set {key}=") for key in named))
    instead = _instead(named, given, said)
    how = f" (in a command: {options})" if named else ""
    return f"{type(pipe).__name__} refuses {asked or 'this call'}{how}: {said.rstrip('.')}{instead}"


def _instead(named: list[str], given: Mapping[str, Any], said: str) -> str:
    """The nearest sizes that a pipeline takes, where it says of which number they must be multiples; else to leave it out."""
    found = re.search(r"(?:divisible by|multiple of) (\d+)", said)
    sizes = [key for key in SIZES if key in named and isinstance(given[key], int)]
    if found is not None and sizes:
        return f": {nearest({key: given[key] for key in sizes}, dict.fromkeys(sizes, int(found[1])))}"
    keys = " and ".join(named)
    return f": leave {keys} out, or give what it takes" if named else ""


def nearest(sizes: Mapping[str, int], by: Mapping[str, int]) -> str:
    """The nearest sizes that are multiples, in words.

    >>> nearest({"height": 481, "width": 833}, {"height": 16, "width": 16})
    'give height=480, width=832 (--size 832x480)'
    """
    made = {key: max(1, round(size / by[key])) * by[key] for key, size in sizes.items()}
    said = ", ".join(f"{key}={size}" for key, size in made.items())
    option = f" (--size {made['width']}x{made['height']})" if len(made) == 2 else ""
    return f"give {said}{option}"


def check_patches(pipe: Any, asked: Mapping[str, Any], dims: Dims, patch: Dims) -> None:
    """InterpError for latents that whole tokens do not cover, whose rest the transformer would leave out. ``dims``: latent
    frames, rows and columns; ``patch``: those of a token."""
    if not any(size % part for size, part in zip(dims[1:], patch[1:], strict=True)):
        return
    pixels = {
        key: asked.get(key) or size * getattr(pipe, "vae_scale_factor_spatial", 1)
        for key, size in zip(SIZES, dims[1:], strict=True)
    }
    by = {key: pixels[key] // size * part for key, size, part in zip(SIZES, dims[1:], patch[1:], strict=True)}
    said = ", ".join(f"{key}={size}" for key, size in pixels.items())
    raise InterpError(
        f"{said} (in a command: --size) makes latents of {dims[1]} x {dims[2]} cells, and a token of {type(pipe).__name__} is "
        f"{patch[1]} x {patch[2]} of them: {nearest(pixels, by)}"
    )


def _named(given: Mapping[str, Any], said: str) -> list[str]:
    """The keywords of those given that a message names, as words of their own."""
    return [key for key, value in given.items() if value is not None and re.search(rf"(?<!\w){re.escape(key)}(?!\w)", said)]


def _brief(value: Any) -> str:
    return repr(value) if isinstance(value, (int, float, str, bool)) and len(repr(value)) < 80 else f"a {type(value).__name__}"
