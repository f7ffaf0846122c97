"""Which cells a patching run measures: sites, layers, heads, token groups, and the controls beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from cos_interp.analyses.kit.grid import EVERYWHERE, SELF, X_T, Cell
from cos_interp.analyses.kit.groups import of_pair
from cos_interp.analyses.kit.pair_file import Boxes
from cos_interp.analyses.kit.pairs import Pair, Side
from cos_interp.analyses.patching import DEFAULT_SITES, HEAD_SITES, PatchingConfig
from cos_interp.interp.model import HookedVideoPipeline

CONTROLS = ("random", "same_answer", "same_prompt")  # other donors; the last one for pairs without an item
REST = "rest"  # the tokens that no group of a task names
STATES = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post")


def sites_of(config: PatchingConfig, model: HookedVideoPipeline) -> tuple[str, ...]:
    """The sites that were asked for, or those of the default ones that the model's blocks have."""
    has = lambda site: any(name.endswith(f".{site}") for name in model.hook_names)
    return config.sites or tuple(site for site in DEFAULT_SITES if has(site))


def asked_layers(config: PatchingConfig, layers: int) -> list[int]:
    """The patched layers of a model with so many."""
    return list(config.layers if config.layers is not None else range(layers))


def rotated(layers: Sequence[int], step: int) -> int:
    """The one of the patched layers that has at a step what is not done in all: the middle one at step 0."""
    return layers[(step + len(layers) // 2) % len(layers)]


def cells(
    config: PatchingConfig, sites: Sequence[str], step: int, layers: int, groups: list[str], whole_state: bool, flat: bool = False
) -> Iterator[Cell]:
    """The grid at one step: the patches, then the controls (a random donor in every cell of a named group, and of the tokens
    without a name at one layer a step).

    ``whole_state``: with the control that all of x_t of the clean run turns the target into it. ``flat``: without all tokens of
    the residual stream together, whose effect is the same in every layer.
    """
    chosen_layers = asked_layers(config, layers)
    turned = rotated(chosen_layers, step)
    for site in sites:
        told = [group for group in groups if not (flat and group == EVERYWHERE and site in STATES and len(groups) > 1)]
        for layer in [None] if site == X_T else chosen_layers:
            heads = config.heads if site in HEAD_SITES and config.heads else (None,)
            for head in heads:
                for group in told:
                    for frame in config.frames or (None,):
                        yield Cell("clean", site, step, layer, head, group, frame)
            for group in told if config.controls else ():
                for donor in _controls(group, layer in (None, turned)):
                    yield Cell(donor, site, step, layer, group=group)
    if config.controls:
        yield Cell(SELF, sites[0], step, None if sites[0] == X_T else turned)
        if whole_state and X_T not in sites:
            yield Cell("clean", X_T, step)


def _controls(group: str, rotated: bool) -> tuple[str, ...]:
    if group == EVERYWHERE:
        return CONTROLS
    return ("random",) if group != REST or rotated else ()


def token_groups(model: HookedVideoPipeline, target: Side, donor: Side, boxes: Boxes) -> dict[str, Tensor | None]:
    """The token groups by name: all tokens, those of the task, or those in boxes of the user's. Only all tokens without items
    and boxes, or where the model's tokens are not the scene's cells."""
    named = of_pair(model, target, donor, boxes)
    return {EVERYWHERE: None} | {name: mask for name, mask in named.items() if name != EVERYWHERE}


def whole_state(model: HookedVideoPipeline, pair: Pair) -> bool:
    """Whether x_t is all that the two runs differ in: one condition, and a scheduler without a history (Euler)."""
    return pair.one_condition and is_euler(model)


def is_euler(model: HookedVideoPipeline) -> bool:
    """Whether a model's scheduler has no history."""
    return "FlowMatchEuler" in type(model.pipe.scheduler).__name__
