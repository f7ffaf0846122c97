"""What a run of probes takes."""

from __future__ import annotations

from dataclasses import replace

from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.driver.thumbnails import thumbnail_bytes
from cos_interp.analyses.kit.problems import problems
from cos_interp.analyses.probing import ProbesConfig
from cos_interp.analyses.probing.data import hook_names, steps_of, targets_of, used_tasks
from cos_interp.analyses.probing.use import ORDER, use_of

MORE = "other candidates where the model does not solve both sides"
EDITS = 2  # the probe's own directions and random ones


def foresee(config: ProbesConfig, outlook: Outlook) -> list[Use]:
    """A generation a clip, with its activations; then pairs that exchange what a probe reads."""
    names, steps = hook_names(config, outlook.model.layers), steps_of(config)
    width, _ = outlook.model.adapter.width(outlook.shape.engine.module)
    clips = len(problems(config))
    tokens = config.probe_tokens if config.prompts is None else outlook.shape.grid.tokens
    stored = clips * len(names) * len(steps) * min(tokens, outlook.shape.grid.tokens) * width * 4
    small = clips * thumbnail_bytes(*outlook.shape.pixels)
    of_a_clip = outlook.kept(names, steps)
    found = [Use("clips that are probed", clips, held=of_a_clip, recording=of_a_clip, decoded=1, disk=stored + small)]
    pairs = config.used_items * sum(len(used_tasks(config, target)) for target in targets_of(config))
    if not pairs:
        return found
    use = use_of(outlook, names[0])
    return [
        *found,
        replace(use, runs=len(ORDER) * pairs, more=MORE),
        Use("runs that are given the other's", EDITS * len(config.used_doses) * pairs, decoded=1),
    ]  # fmt: skip
