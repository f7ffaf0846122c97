"""Which cells a patching run measures: sites, layers, heads, token groups, and the controls beside them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cos_interp.analyses.kit.grid import EVERYWHERE, SELF, X_T, Cell, token_shape
from cos_interp.analyses.kit.pairs import Pair, Side
from cos_interp.analyses.patching import HEAD_SITES, PatchingConfig
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.sweeping import Span
from cos_interp.tasks import get_task

CONTROLS = ("random", "same_answer", "same_prompt")  # other donors; the last one for pairs without an item


def span_of(config: PatchingConfig, pair: Pair) -> Span:
    """The range of steps of a pair. ``auto``: from step k on, but single steps between two noises.

    A donor that started from another noise carries it in its activations: held in place over many steps they give the
    velocity of another x_t, and the result leaves the data.
    """
    if config.span != "auto":
        return config.span
    return "from" if pair.one_noise else "single"


def cells(config: PatchingConfig, step: int, layers: int, groups: list[str], whole_state: bool) -> Iterator[Cell]:
    """The grid at one step: the patches, then the controls (on named groups a random donor at one layer a step).

    ``whole_state``: with the control that all of x_t of the clean run turns the target into it.
    """
    chosen_layers = list(config.layers if config.layers is not None else range(layers))
    rotated = chosen_layers[(step + len(chosen_layers) // 2) % len(chosen_layers)]  # the middle layer at step 0
    for site in config.sites:
        for layer in [None] if site == X_T else chosen_layers:
            heads = config.heads if site in HEAD_SITES and config.heads else (None,)
            for head in heads:
                for group in groups:
                    for frame in config.frames or (None,):
                        yield Cell("clean", site, step, layer, head, group, frame)
            for group in groups if config.controls else ():
                sampled = ("random",) if layer in (None, rotated) else ()
                for donor in CONTROLS if group == EVERYWHERE else sampled:
                    yield Cell(donor, site, step, layer, group=group)
    if config.controls:
        yield Cell(SELF, config.sites[0], step, None if config.sites[0] == X_T else rotated)
        if whole_state and X_T not in config.sites:
            yield Cell("clean", X_T, step)


def token_groups(model: HookedVideoPipeline, config: PatchingConfig, target: Side, donor: Side) -> dict[str, Tensor | None]:
    """The asked token groups by name. Only all tokens without items, or where the model's tokens are not the scene's cells."""
    made: dict[str, Tensor | None] = {EVERYWHERE: None}
    if target.problem.item is not None and donor.problem.item is not None:
        masks = get_task(target.item.task).groups(target.item, donor.item)
        if all(mask.shape == token_shape(model, target) for mask in masks.values()):
            made |= {name: torch.from_numpy(mask) for name, mask in masks.items()}
    return {name: mask for name, mask in made.items() if config.tokens is None or name in config.tokens}


def whole_state(model: HookedVideoPipeline, pair: Pair) -> bool:
    """Whether x_t is all that the two runs differ in: one condition, and a scheduler without a history (Euler)."""
    return pair.one_condition and "FlowMatchEuler" in type(model.pipe.scheduler).__name__
