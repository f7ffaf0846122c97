"""What an attention run takes."""

from __future__ import annotations

from cos_interp.analyses.attention import AttentionConfig
from cos_interp.analyses.attention.measure import WORDS, shown_queries
from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit.attention_reader import some_queries
from cos_interp.analyses.kit.problems import chosen_steps, problems

COPIES = 3  # of a pattern while it is summed up: itself, its logarithm and their product


def foresee(config: AttentionConfig, outlook: Outlook) -> list[Use]:
    """A generation an item; of each attention some queries' rows at a time, and maps of one query and of the words: of the heads
    that are shown, and of the first item of a task of every head; of the very first with further queries."""
    found, shape = problems(config), outlook.shape
    width, heads = outlook.model.adapter.width(shape.engine.module)
    layers = len(config.layers) if config.layers is not None else outlook.model.layers
    shown = len(config.heads) if config.heads else 1
    tokens, asked = shape.grid.tokens, len(some_queries(shape.grid.shape))
    calls = len(chosen_steps(config, 5)) * layers
    map_bytes, queries = calls * tokens * 4, len(shown_queries((0, 0, 0), shape.grid.shape, calls * heads))
    maps, looks = map_bytes * (shown + WORDS), map_bytes * heads * (1 + WORDS)
    further = map_bytes * heads * (queries - 1)
    rows = COPIES * heads * max(asked * tokens, tokens * shape.text) * 4 + 2 * asked * tokens * 4 + 2 * tokens * width * 4
    firsts = sum(problem.first for problem in found)
    disk = len(found) * maps + firsts * (looks + shape.clip_bytes) + further
    finished = 2 * (maps + looks + further)  # they are put together before they are written
    return [Use("runs that are read", len(found), held=rows, finished=finished, decoded=min(firsts, 1), disk=disk)]
