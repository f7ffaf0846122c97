"""What is kept of a pair's recordings, and where: of the run that receives the streams from which patches start, of those that
give the asked sites, layers, steps and tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cos_interp.analyses.driver.outlook import Kept, Outlook, Use, recording_budget
from cos_interp.analyses.driver.placed import Placed
from cos_interp.analyses.driver.plan import planned
from cos_interp.analyses.driver.planning import kind_of_device, limits_of
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.grid import EVERYWHERE, X_T
from cos_interp.analyses.kit.groups import of_boxes
from cos_interp.analyses.kit.pairs import BESIDE, Recorder, SideKept
from cos_interp.analyses.kit.problems import arguments
from cos_interp.analyses.patching import PatchingConfig
from cos_interp.analyses.patching.cells import asked_layers, rotated, sites_of
from cos_interp.analyses.patching.pieces import Piece, span_of, steps_of
from cos_interp.interp.address import BRANCHES
from cos_interp.interp.errors import InterpError
from cos_interp.interp.keeping import Keeping
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.places import Disk, HostMemory, Place
from cos_interp.interp.planning.first import first_latents
from cos_interp.interp.sweeping import spanned

RUNS = 4  # that are recorded of a pair at most
SMALL = 1 << 30  # bytes of all recordings of a machine, of which nobody asks where they are: the plan of a place takes a second


@dataclass(frozen=True)
class Gives:
    """What a side is recorded for."""

    sites: tuple[str, ...]
    steps: list[int]
    keeping: Keeping


def acting(config: PatchingConfig, piece: Piece) -> list[tuple[int, ...]]:
    """Of each patched step of a pair the steps in which its patches act."""
    return [spanned(step, config.num_inference_steps, span_of(config, piece.one_noise)) for step in steps_of(config, piece)]


def kept_of(config: PatchingConfig, model: HookedVideoPipeline, piece: Piece, tokens: Tensor | None) -> dict[str, Gives]:
    """What each side is recorded for, by name. ``tokens``: those that are given, bool over the token grid; None: all.

    The run that receives is its own donor in one cell a step. Where patches act in single steps, all is needed a step at a time.
    """
    own = [site for site in sites_of(config, model) if site != X_T]
    layers = asked_layers(config, model.layers) if own else ()
    among = ("*",) if config.layers is None else config.layers
    sites = tuple(f"blocks.{layer}.{site}" for site in own for layer in among)
    itself = {f"blocks.{rotated(layers, step)}.{own[0]}": None for step in steps_of(config, piece)} if own else {}
    if not config.controls or sites_of(config, model)[0] == X_T:
        itself = {}
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


def bytes_of(outlook: Outlook, gives: Gives) -> tuple[int, int]:
    """Of one recording: of all its steps, and at least, with one step at a time of what passes."""
    streams = gives.keeping.streams(outlook.model.hook_names)
    sites = set(outlook.model.matching(list(gives.sites)) if gives.sites else ())
    passing = sites | streams if gives.keeping.single else streams - sites
    mask = gives.keeping.tokens
    share = 1.0 if mask is None else float(mask.sum()) / mask.numel()
    of = lambda names, some: -(-outlook.kept(sorted(names), some) * share // 1) if names else 0
    return int(of(sites | streams, gives.steps)), int(of(passing, gives.steps[:1]) + of(sites - passing, gives.steps))


def foreseen(config: PatchingConfig, outlook: Outlook, piece: Piece, beside: int) -> Kept:
    """The recordings of a pair with so many ``beside`` its sides: the receiving one, the giving one, the others."""
    groups = of_boxes(piece.boxes, outlook.shape.grid.shape, outlook.shape.pixels, "--pair-file") if piece.boxes else {}
    kept = kept_of(config, outlook.model, piece, union(config, groups))
    order = ("corrupt", "clean") if config.direction == "denoising" else ("clean", "corrupt")
    sides = [kept[side] for side in (*order, *[BESIDE] * beside)]
    sizes = [bytes_of(outlook, gives) for gives in sides]
    starts, passing = set(map(min, acting(config, piece))), sum(lean < whole for whole, lean in sizes)
    calls = sum(call.step in starts for call in outlook.run().calls)
    whole, lean = zip(*sizes, strict=True)
    return Kept(whole, lean, passing * calls * outlook.model.layers)


def recorder(
    model: HookedVideoPipeline, config: PatchingConfig, store: RunStore, piece: Piece, use: Callable[[Outlook], Use]
) -> Recorder:  # fmt: skip
    """Makes the recordings of a pair, each in its place and within its part of the memory. ``use``: says what the pair takes."""
    kept = kept_of(config, model, piece, union(config, _boxes(model, config, piece)))
    chosen = _chosen(model, config, store, kept, use)
    order = {"corrupt": 0, "clean": 1, BESIDE: 2} if config.direction == "denoising" else {"clean": 0, "corrupt": 1, BESIDE: 2}
    most = {side: chosen.most(place) for side, place in order.items()}
    asked = {side: SideKept(gives.sites, gives.steps, gives.keeping, most[side]) for side, gives in kept.items()}

    def place() -> Place | None:
        if chosen.place == "disk":
            return Disk(store.scratch())
        return HostMemory() if chosen.place == "host" and kind_of_device(config) != "cpu" else None

    return Recorder(model, config, kept=asked, place=place)


def _chosen(
    model: HookedVideoPipeline, config: PatchingConfig, store: RunStore, kept: Mapping[str, Gives], use: Callable[[Outlook], Use]
) -> Placed:  # fmt: skip
    """As the plan of the run has it; where they are small, or nothing tells how the loop runs, where they are computed."""
    near, device = Placed("device", (recording_budget(config),), 0), kind_of_device(config)
    workers = store.processes if device == "cpu" else 1
    try:
        outlook = Outlook.of(model, config)
        if not config.limits() and workers * RUNS * max(map(partial(_at_most, outlook), kept.values())) <= SMALL:
            return near
        plan = planned(lambda _, given: [use(given)], outlook, device, limits_of(config, device, store.folder), workers)
    except InterpError:
        return near
    assert plan.placed is not None
    return plan.placed


def _at_most(outlook: Outlook, gives: Gives) -> int:
    """Bytes of a recording with all branches and steps, without asking how the loop runs."""
    model = outlook.model
    names = gives.keeping.streams(model.hook_names).union(model.matching(list(gives.sites)) if gives.sites else ())
    return outlook.steps * len(BRANCHES) * sum(map(outlook.shape.activation, names))


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
