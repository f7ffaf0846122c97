"""The other model, loaded once a process."""

from __future__ import annotations

from dataclasses import replace

from cos_interp.analyses.diff import DiffConfig
from cos_interp.analyses.kit.other_models import beside
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline


def other_model(model: HookedVideoPipeline, config: DiffConfig) -> HookedVideoPipeline:
    """The one that the first model is held against, told the same of every call as that one; loaded once a process.

    InterpError where none was named.
    """
    if config.against is None and not config.against_lora:
        raise InterpError(
            "diff holds one model against another: give --against MODEL, or --against-lora FILE for --model with it"
        )
    name = config.model if config.against is None else config.against
    placing = replace(config.placing(), dtype=config.against_dtype, lora=config.against_lora)
    return beside(model, config, name, placing, config.revision if config.against is None else None)
