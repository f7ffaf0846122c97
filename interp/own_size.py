"""The size that a pipeline makes where none is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

SIZES = ("height", "width", "num_frames")
# where the signature says None: what the pipeline itself takes then, as (attribute of the transformer's configuration, factor)
SAMPLE = {
    "height": ("sample_height", "vae_scale_factor_spatial"), "width": ("sample_width", "vae_scale_factor_spatial"),
    "num_frames": ("sample_frames", None),
}  # fmt: skip


def own_size(pipe: Any, defaults: Mapping[str, Any]) -> dict[str, int]:
    """Height, width and frames in pixels of a call that does not say them: ``defaults``, else the pipeline's signature, else what
    it takes from its transformer's configuration. A size that is not to be known beforehand is left out."""
    made: dict[str, int] = {}
    for key in SIZES:
        parameter = inspect.signature(type(pipe).__call__).parameters.get(key)
        said = defaults.get(key, None if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default)
        said = getattr(pipe, f"default_{key}", None) if said is None else said  # Mochi
        said = _of_configuration(pipe, key) if said is None and parameter is not None else said
        if isinstance(said, int):
            made[key] = said
    return made


def _of_configuration(pipe: Any, key: str) -> int | None:
    attribute, factor = SAMPLE[key]
    cells = getattr(getattr(getattr(pipe, "transformer", None), "config", None), attribute, None)
    if key == "num_frames" and "Allegro" in type(pipe).__name__:
        factor = "vae_scale_factor_temporal"
    return None if cells is None else cells * (1 if factor is None else getattr(pipe, factor, 1))
