"""What is kept of a pair's recordings, and where: of the run that receives the streams from which patches start, of those that
give the asked sites, layers, steps and tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from cos_interp.analyses.driver.outlook import Kept, Outlook, Use
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit import recorded
from cos_interp.analyses.kit.grid import EVERYWHERE, X_T
from cos_interp.analyses.kit.groups import of_boxes
from cos_interp.analyses.kit.pairs import BESIDE, Recorder
from cos_interp.analyses.kit.problems import arguments
from cos_interp.analyses.kit.recorded import Gives
from cos_interp.analyses.patching import PatchingConfig
from cos_interp.analyses.patching.cells import asked_layers, rotated, sites_of
from cos_interp.analyses.patching.pieces import Piece, span_of, steps_of
from cos_interp.interp.keeping import Keeping
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.planning.first import first_latents
from cos_interp.interp.sweeping import spanned


def acting(config: PatchingConfig, piece: Piece) -> list[tuple[int, ...]]:
    """Of each patched step of a pair the steps in which its patches act."""
    return [spanned(step, config.num_inference_steps, span_of(config, piece.one_noise)) for step in steps_of(config, piece)]


def kept_of(config: PatchingConfig, model: HookedVideoPipeline, piece: Piece, tokens: Tensor | None) -> dict[str, Gives]:
    """What each side is recorded for, by name. ``tokens``: those that are given, bool over the token grid; None: all.

    The run that receives is its own donor in one cell a step. Where patches act in single steps, all is needed a step at a time.
    """
    own = [site for site in sites_of(config, model) if site != X_T]
    layers: Sequence[int] = asked_layers(config, model.layers) if own else []
    among = ("*",) if config.layers is None else config.layers
    sites = tuple(f"blocks.{layer}.{site}" for site in own for layer in among)
    first_is_own = bool(own) and sites_of(config, model)[0] != X_T
    if config.method == "gradient":  # the first cell of the map
        turned = [layers[0]] if first_is_own else []
    else:
        turned = [rotated(layers, step) for step in steps_of(config, piece)] if first_is_own and config.controls else []
    itself = list(dict.fromkeys(f"blocks.{layer}.{own[0]}" for layer in turned))
    single = span_of(config, piece.one_noise) == "single" and config.method == "exact" and config.coarse is None
    every = acting(config, piece)
    starts, steps = sorted(set(map(min, every))), sorted(set().union(*every))
    receives = Gives(tuple(itself), steps if itself else starts, Keeping(layers, single=single))
    gives = Gives(sites, steps, Keeping((), tokens, single))
    target, donor = ("corrupt", "clean") if config.direction == "denoising" else ("clean", "corrupt")
    return {target: receives, donor: gives, BESIDE: gives}


def union(config: PatchingConfig, groups: Mapping[str, Tensor]) -> Tensor | None:
    """The tokens of the groups that are patched; None for all. ``groups``: the boxes of a pair, none where they are not known
    before its runs."""
    if config.tokens is None or EVERYWHERE in config.tokens or not set(config.tokens) & set(groups):
        return None
    masks = [mask for name, mask in groups.items() if name in config.tokens]
    found = torch.stack(masks).any(0)
    return None if found.all() else found


def order_of(config: PatchingConfig, beside: int) -> list[str]:
    """The sides of a pair that are there at once: the receiving one, the giving one, and so many ``beside`` them."""
    sides = ["corrupt", "clean"] if config.direction == "denoising" else ["clean", "corrupt"]
    return [*sides, *[BESIDE] * beside]


def foreseen(config: PatchingConfig, outlook: Outlook, piece: Piece, beside: int) -> Kept:
    """The recordings of a pair with so many ``beside`` its sides."""
    outlook = outlook if piece.sides is None else outlook.at(piece.sides[0].call)
    groups = of_boxes(piece.boxes, outlook.shape.grid.shape, outlook.shape.pixels, "--pair-file") if piece.boxes else {}
    kept = kept_of(config, outlook.model, piece, union(config, groups))
    starts = sorted(map(min, acting(config, piece)))
    return recorded.foreseen(outlook, [kept[side] for side in order_of(config, beside)], starts)


def recorder(
    model: HookedVideoPipeline, config: PatchingConfig, store: RunStore, piece: Piece, use: Callable[[Outlook], Use]
) -> Recorder:  # fmt: skip
    """Makes the recordings of a pair, each in its place and within its part of the memory. ``use``: says what the pair takes."""
    kept = kept_of(config, model, piece, union(config, _boxes(model, config, piece)))
    return recorded.recorder(model, config, store, kept, order_of(config, 2), use)


def _boxes(model: HookedVideoPipeline, config: PatchingConfig, piece: Piece) -> Mapping[str, Tensor]:
    """The boxes of a pair as token groups, where its call says how large its video is."""
    if not piece.boxes or piece.sides is None:
        return {}
    call = arguments(model, config, piece.sides[0])
    said = [call.get(name) or model.default(name) for name in ("num_frames", "height", "width")]
    if not all(said):
        return {}
    frames, height, width = map(int, said)
    shape = model.token_grid(first_latents(model, **call)).shape
    return of_boxes(piece.boxes, shape, (frames, height, width), piece.sides[0].source)
