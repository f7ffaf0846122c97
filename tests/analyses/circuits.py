"""What tests of circuits share: own pairs, their settings, and recordings of all that parts of blocks write."""

from __future__ import annotations

import json

from planted import BOXES, SIZE

from cos_interp.analyses.circuit import HEADS, SITES, CircuitConfig
from cos_interp.analyses.kit.pairs import Recorder

WORDS = ("red ball", "blue ball", "two goals", "a box", "green square", "left", "right of it", "the agent")
STEPS = 2


def pair_file(folder, count=4, boxes=BOXES):
    lines = [
        {"clean": {"prompt": WORDS[n], **SIZE}, "corrupt": {"prompt": WORDS[-1 - n], **SIZE}, "boxes": boxes}
        for n in range(count)
    ]
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def asked(folder, **more):
    return CircuitConfig(**{"pair_file": pair_file(folder), "pairs": 2, "num_inference_steps": STEPS, "batch": 4, **more})


def recorder(model, config) -> Recorder:
    """Runs with all that components write, and give, kept."""
    return Recorder(model, config, [f"blocks.*.{site}" for site in (*SITES.values(), *HEADS.values())])
