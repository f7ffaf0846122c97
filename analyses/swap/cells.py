"""The swaps of a pair: what is swapped, where, for how long, and who gives."""

from __future__ import annotations

from collections.abc import Iterator

from cos_interp.analyses.kit.grid import EVERYWHERE, SELF, Cell
from cos_interp.analyses.kit.problems import chosen_steps
from cos_interp.analyses.swap import Lasting, SwapConfig, Swapped
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.sweeping import spanned

# what is swapped: the site, and whether the donor's update by the block is put there or its state
VARIANTS = {
    "block": ("hook_resid_post", False), "delta": ("hook_resid_post", True), "attention": ("hook_attn_out", False),
    "cross": ("hook_cross_attn_out", False), "mlp": ("hook_mlp_out", False),
}  # fmt: skip
NAMES = {given: variant for variant, given in VARIANTS.items()}


def cell(donor: str, variant: str, layer: int, group: str, step: int) -> Cell:
    """One swap as a cell of a grid."""
    site, update = VARIANTS[variant]
    return Cell(donor, site, step, layer, group=group, update=update)


def variant_of(cell: Cell) -> str:
    return NAMES[cell.site, cell.update]


def main_variant(config: SwapConfig) -> Swapped:
    """What the rules are about: the block's output, as in the paper; without it the first that was asked for."""
    return "block" if "block" in config.variants else config.variants[0]


Place = tuple[int, Lasting]  # the first swapped step, and how long the swap lasts


def places(config: SwapConfig) -> list[Place]:
    """Where is swapped: every asked step alone, from every later one on, and at all steps."""
    single: list[Place] = [(step, "single") for step in steps_of(config)]
    later: list[Place] = [(step, "from") for step in steps_of(config) if step > 0]
    made: dict[Lasting, list[Place]] = {"single": single, "from": later, "all": [(0, "all")]}
    return [place for span in config.spans for place in made[span]]


def cells(config: SwapConfig, place: Place, layers: tuple[int, ...], groups: list[str], donors: list[str]) -> Iterator[Cell]:
    """The swaps at a place. What the rules read has the random item's tokens beside it in the same cell: the first variant, also
    in the groups at the first asked step and throughout, and the update (delta) at that step. Each variant once with the run
    itself as donor."""
    step, span = place
    first, main = main_variant(config), place == (steps_of(config)[0], "single")
    variants = config.variants if span == "single" else (first,)
    for variant in variants:
        whole = [EVERYWHERE] if not (main or span == "all") else [g for g in groups if g != "random" or variant == first]
        yield from (cell("pair", variant, layer, group, step) for group in whole for layer in layers)
        if "random item" in donors and (variant == first or (variant == "delta" and main)):
            beside = whole if variant == first else [EVERYWHERE]
            yield from (cell("random item", variant, layer, group, step) for group in beside for layer in layers)
    for donor in donors if main else []:
        if donor not in ("pair", "random item", SELF):
            yield from (cell(donor, first, layer, EVERYWHERE, step) for layer in layers)
    for at, variant in enumerate(variants):
        yield cell(SELF, variant, layers[(step + at) % len(layers)], EVERYWHERE, step)


def steps_of(config: SwapConfig) -> tuple[int, ...]:
    """The steps that were asked for; the paper's first one and the middle one by default."""
    return chosen_steps(config) if config.steps is not None else (0, config.num_inference_steps // 2)


def layers_of(model: HookedVideoPipeline, config: SwapConfig) -> tuple[int, ...]:
    """The swapped layers."""
    return config.layers if config.layers is not None else tuple(range(model.layers))


def acting_steps(config: SwapConfig) -> list[tuple[int, ...]]:
    """Of each place the steps in which its swaps act."""
    return [spanned(k, config.num_inference_steps, "single" if span == "single" else "from") for k, span in places(config)]
