"""What an attention run takes."""

from __future__ import annotations

from cos_interp.analyses.attention import AttentionConfig
from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit.attention_reader import some_queries
from cos_interp.analyses.kit.problems import chosen_steps, problems

WORDS = 16  # of a prompt that are mapped, about


def foresee(config: AttentionConfig, outlook: Outlook) -> list[Use]:
    """A generation an item; of each attention some queries' rows at a time, and maps of one query and of the words."""
    count, shape = len(problems(config)), outlook.shape
    width, heads = outlook.model.adapter.width(shape.engine.module)
    layers = len(config.layers) if config.layers is not None else outlook.model.layers
    shown = len(config.heads) if config.heads else 1
    tokens, asked = shape.grid.tokens, len(some_queries(shape.grid.shape))
    maps = len(chosen_steps(config, 5)) * layers * tokens * (shown + WORDS) * 4
    rows = heads * max(asked * tokens, tokens * shape.text) * 4 + 2 * tokens * width * 4
    return [Use("runs that are read", count, held=rows + maps, disk=count * maps)]
