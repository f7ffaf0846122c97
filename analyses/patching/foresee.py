"""What a patching run takes: its recordings, and the blocks of every cell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby

from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.driver.plan import at_once
from cos_interp.analyses.kit.foreseen import AGAIN, OTHERS, SOME, Nothing, blocks_of_rows, groups, target, tried
from cos_interp.analyses.kit.grid import EVERYWHERE, SELF, Cell, checked_alone
from cos_interp.analyses.kit.groups import of_boxes
from cos_interp.analyses.kit.rows import foreseen as fitting_rows
from cos_interp.analyses.patching import PatchingConfig
from cos_interp.analyses.patching.blocks import always, blocks
from cos_interp.analyses.patching.cells import asked_layers, cells, is_euler, sites_of
from cos_interp.analyses.patching.pieces import OWN, Piece, pairs_of, span_of, steps_of
from cos_interp.analyses.patching.recordings import foreseen
from cos_interp.interp.cache_plan import DEFAULT_BUDGET
from cos_interp.interp.patches import Donor, Patch
from cos_interp.interp.patching import Minimum
from cos_interp.interp.sweeping import spanned

DRAWN = "which cells these are is drawn, and read off the map"
UNFOUND = "fewer where blocks show no effect"
FILE = 4  # times that the latents of a unit are in memory at most while its file is written: alone, joined, packed, sealed
MORE = f"{OTHERS}, other noises where it does not give the same answer"


def foresee(config: PatchingConfig, outlook: Outlook) -> list[Use]:
    """The recordings of every pair and of the donors of its controls, and the patched runs."""
    if config.method == "gradient":
        return _foresee_maps(config, outlook)
    asked = pairs_of(config)
    sides = sum(2 + len(donors_of(config, piece)) for piece in asked)
    blocks = [blocks_of(config, outlook, piece, steps_of(config, piece)) for piece in asked]
    judged = config.pair_file is None or config.scored
    together, alone = (sum(part) for part in zip(*blocks, strict=True)) if blocks else (0, 0)
    bound, looks = config.coarse is not None, 1 if config.coarse is None else 2  # of all pairs first, then at each again
    found = [
        Use("recordings", sides * looks, decoded=1, further=looks * further_of(config, outlook, asked), bound=bound,
            more=MORE if judged else ""),
        replace(use_of(config, outlook, asked), blocks=together, bound=bound, more=UNFOUND if bound else ""),
        Use("a row a step alone, for the rounding", blocks=alone, bound=bound),
    ]  # fmt: skip
    if bound:
        found.insert(1, Use("blocks of steps and layers", blocks=sum(blocks_first(config, outlook, piece) for piece in asked)))
    return found


def blocks_first(config: PatchingConfig, outlook: Outlook, piece: Piece) -> int:
    """Transformer blocks that the rows of a pair's blocks take."""
    outlook = of_pair(config, outlook, piece)
    steps, model, sites = steps_of(config, piece), outlook.model, sites_of(config, outlook.model)
    layers, size = asked_layers(config, model.layers), int(config.coarse or 1)
    cells = [c for k in steps for c in cells_of(config, outlook, piece, k) if c.donor == "clean" and not always(c, sites)]
    if not outlook.counting:
        return 0
    donor, branches, rows = cache(lambda *_: Nothing()), _branches(config, outlook), []
    for block in blocks(cells, steps, layers, size):
        spans = [_acting(config, outlook, piece, step) for step in block.steps]
        at = [Cell("clean", block.site, block.steps[0], layer, group=block.group) for layer in block.layers or (None,)]
        acting = tuple(sorted(set().union(*spans)))
        tokens = SOME if config.frames is not None or block.group != EVERYWHERE else None
        rows.append([replace(_patch(cell, acting, branches, donor), tokens=tokens) for cell in at])
    return blocks_of_rows(outlook, rows, set())


def use_of(config: PatchingConfig, outlook: Outlook, asked: Sequence[Piece]) -> Use:
    """What the patched runs of some pairs take beside blocks: recordings of one pair at a time, rows, pixels, files."""
    steps = [len(steps_of(config, piece)) for piece in asked]
    each = [len(cells_of(config, outlook, piece, steps_of(config, piece)[0])) for piece in asked]  # as many at every step
    count, most = sum(a * b for a, b in zip(steps, each, strict=True)), max(each, default=0)
    units = sum(steps) + len(asked)
    shape = outlook.shape
    disk = (count + most + 2 * len(asked)) * shape.latent_bytes + (units + len(asked)) * shape.clip_bytes
    judged = config.pair_file is None or config.scored
    every = [foreseen(config, outlook, piece, len(donors_of(config, piece))) for piece in asked]
    kept = max(every, key=lambda one: (sum(one.whole), sum(one.lean)), default=None)
    kept = None if kept is None else replace(kept, again=sum(one.again for one in every))
    return Use(
        f"patched runs, {count} rows", rows=rows_of(config, outlook), held=_shared(outlook, config), kept=kept,
        decoded=min(at_once(outlook), most) if judged else 1, disk=disk, finished=FILE * most * shape.latent_bytes,
    )  # fmt: skip


def _shared(outlook: Outlook, config: PatchingConfig) -> int:
    """Bytes of what the calls that several cells have in common return: at most one of each step and layer."""
    calls = len(outlook.run().calls) * len(asked_layers(config, outlook.model.layers))
    return min(DEFAULT_BUDGET, calls * outlook.shape.latent_bytes)


def _foresee_maps(config: PatchingConfig, outlook: Outlook) -> list[Use]:
    """The recordings of every pair, one sweep back a pair, and as many exact cells as its map is held against."""
    asked = pairs_of(config)
    sweeps, held = 0, [exact_of(config, outlook, piece) for piece in asked]
    for piece in asked:
        calls = of_pair(config, outlook, piece).run().calls
        sweeps += sum(call.step >= first_of(config, outlook, piece) for call in calls) * outlook.model.layers
    rows, blocks = sum(one.cells for one in held), sum(one.blocks for one in held)
    judged, drawn = config.pair_file is None or config.scored, any(one.drawn for one in held)
    disk = (rows + 2 * len(asked)) * outlook.shape.latent_bytes + rows * outlook.shape.clip_bytes
    back = "the way back, which takes 1.3 times the time of the forwards"
    together = max(len(list(calls)) for _, calls in groupby(outlook.run().calls, key=lambda call: call.forward))
    looks = 1 if len(asked) == 1 else 2  # the maps of all pairs first, then the exact cells of each
    return [
        Use(
            "recordings",
            2 * len(asked) * looks,
            decoded=1,
            further=looks * further_of(config, outlook, asked),
            more=MORE if judged else "",
        ),
        Use("gradient maps", blocks=sweeps, held=outlook.shape.graph(together), more=back),
        replace(
            use_of(config, outlook, asked),
            what=f"exact cells, {'at most ' * drawn}{rows}",
            blocks=blocks,
            disk=disk,
            bound=drawn,
            more=DRAWN if drawn else "",
        ),
    ]


@dataclass(frozen=True)
class Exact:
    """Of the exact cells that a pair's map is held against: how many, the block calls that they take, and whether these are drawn
    and found, so that both are the most that they may be."""

    cells: int
    blocks: int
    drawn: bool


def exact_of(config: PatchingConfig, outlook: Outlook, piece: Piece) -> Exact:
    """The exact cells of a pair, and what it takes to finish one of each step again alone, by which rounding is measured."""
    sites, outlook = sites_of(config, outlook.model), of_pair(config, outlook, piece)
    made = [cell for step in steps_of(config, piece) for cell in cells_of(config, outlook, piece, step)]
    main = [cell for cell in made if cell.donor == "clean" and cell.site in sites]
    own = [replace(cell, donor=SELF) for cell in main[:1]]
    kinds = [
        [c for c in main if c.site == site and (c.group == EVERYWHERE) == whole] for site in sites for whole in (True, False)
    ]
    most = min(len(main), sum(min(config.exact_cells, len(kind)) for kind in kinds) + config.top_cells)
    if most == len(main) or not outlook.counting:
        return Exact(most + len(own), sum(_finished(config, outlook, piece, [*main, *own])), most < len(main))
    least, every = Minimum(outlook.model, target(outlook)), [*main, *own]
    cost = dict(zip(every, map(least.blocks, _patches(config, outlook, piece, every)), strict=True))
    dear = lambda some, count: sorted(some, key=lambda cell: -cost[cell])[:count]
    drawn = [cell for kind in kinds for cell in dear(kind, config.exact_cells)]
    taken = set(drawn)
    largest = dear([cell for cell in main if cell not in taken], config.top_cells)
    again: dict[int, int] = {}
    for cell in main if rows_of(config, outlook) > 1 else ():
        again[cell.step] = max(cost[cell], again.get(cell.step, 0))
    blocks = sum(cost[cell] for cell in [*drawn, *largest, *own]) + sum(dear_steps(again, len(drawn) + len(largest)))
    return Exact(most + len(own), blocks, True)


def dear_steps(costs: Mapping[int, int], cells: int) -> list[int]:
    """Of the steps that may have two cells which share a forward, of so many in all, what one of these takes again at most."""
    return sorted(costs.values(), reverse=True)[: cells // 2]


def further_of(config: PatchingConfig, outlook: Outlook, asked: Sequence[Piece]) -> float:
    """Block calls of what is recorded at most beside the first candidates of pairs and the first noises of their controls."""
    if config.pair_file is not None:
        return 0
    again = sum("same_answer" in donors_of(config, piece) for piece in asked)
    kinds = [piece.kind for piece in asked if piece.kind != OWN and (config.solved or piece.kind == "seed")]
    return (sum(map(tried, kinds)) + again * AGAIN) * outlook.blocks()


def first_of(config: PatchingConfig, outlook: Outlook, piece: Piece) -> int:
    """The first step in which a pair is patched, where a sweep back ends."""
    steps = steps_of(config, piece)
    return min(min(_acting(config, outlook, piece, step)) for step in steps)


def donors_of(config: PatchingConfig, piece: Piece) -> tuple[str, ...]:
    """The donors of a pair's controls."""
    if not config.controls or config.method == "gradient":
        return ()
    if piece.sides is None:
        return ("random", "same_answer")
    return ("same_prompt",) if piece.stranger is None else ("random", "same_prompt")


def cells_of(config: PatchingConfig, outlook: Outlook, piece: Piece, step: int) -> list[Cell]:
    """The cells of one step of a pair, as :meth:`PairGrid.cells` makes them once the pair is there."""
    groups = [group for group in groups_of(config, outlook, piece) if config.tokens is None or group in config.tokens]
    one_condition = piece.kind == "seed" if piece.sides is None else piece.sides[0].call == piece.sides[1].call
    whole = one_condition and is_euler(outlook.model)
    flat = config.tokens is None and not one_condition
    made = cells(config, sites_of(config, outlook.model), step, outlook.model.layers, groups, whole, flat)
    there = {"clean", SELF, *donors_of(config, piece)}
    return [cell for cell in made if cell.donor in there]


def blocks_of(config: PatchingConfig, outlook: Outlook, piece: Piece, steps: tuple[int, ...]) -> tuple[int, int]:
    """Transformer blocks that the patched runs of a pair take, where what they have in common runs once; and those of the one row
    of each step that is finished alone, by which rounding is measured."""
    outlook = of_pair(config, outlook, piece)
    return _finished(config, outlook, piece, [cell for step in steps for cell in cells_of(config, outlook, piece, step)])


def _finished(config: PatchingConfig, outlook: Outlook, piece: Piece, asked: Sequence[Cell]) -> tuple[int, int]:
    """As :func:`blocks_of`, of some cells of a pair, step by step."""
    if not outlook.counting:
        return 0, 0
    rows, by_step = rows_of(config, outlook), defaultdict[int, list[Cell]](list)
    for cell in asked:
        by_step[cell.step].append(cell)
    found = [checked_alone(some, rows) for some in by_step.values()]
    alone = _patches(config, outlook, piece, [one for one in found if one is not None])
    done = set[Hashable]()
    return blocks_of_rows(outlook, _patches(config, outlook, piece, asked), done), blocks_of_rows(outlook, alone)


def _patches(config: PatchingConfig, outlook: Outlook, piece: Piece, asked: Sequence[Cell]) -> Iterator[Patch]:
    """The patches of cells. Of each place one donor, by which shared calls are known."""
    donor, branches = cache(lambda *_: Nothing()), _branches(config, outlook)
    acting = {step: _acting(config, outlook, piece, step) for step in {cell.step for cell in asked}}
    return (_patch(cell, acting[cell.step], branches, donor) for cell in asked)


def _acting(config: PatchingConfig, outlook: Outlook, piece: Piece, step: int) -> tuple[int, ...]:
    """The steps in which a cell of a step is patched."""
    return spanned(step, outlook.steps, span_of(config, piece.one_noise))


def of_pair(config: PatchingConfig, outlook: Outlook, piece: Piece) -> Outlook:
    """What is known of the runs of a pair: those of the side that receives, as its line says them."""
    return outlook if piece.sides is None else outlook.at(piece.sides[int(config.direction == "denoising")].call)


def _branches(config: PatchingConfig, outlook: Outlook) -> tuple[str, ...]:
    return outlook.run().branches if config.branch == "both" else (config.branch,)


def _patch(cell: Cell, steps: tuple[int, ...], branches: tuple[str, ...], donor: Callable[..., Donor]) -> Patch:
    given = donor(cell.donor, cell.site, cell.layer, cell.update)
    return Patch(cell.hook, steps, given, branches, None if cell.group == EVERYWHERE and cell.frame is None else SOME)


def rows_of(config: PatchingConfig, outlook: Outlook) -> int:
    """Rows of a forward; where the memory decides and is known, as many as it holds."""
    return fitting_rows(outlook) if config.batch == "auto" else config.batch


def groups_of(config: PatchingConfig, outlook: Outlook, piece: Piece) -> list[str]:
    """The token groups of a pair: of a task's, those of its first candidate, which is the pair where the model solves it."""
    if piece.kind == OWN:
        shape = of_pair(config, outlook, piece).shape
        boxes = of_boxes(piece.boxes, shape.grid.shape, shape.pixels, "--pair-file") if piece.boxes else {}
        return [EVERYWHERE, *boxes]
    masks = groups(outlook, config, config.task_name, piece.kind, piece.index, config.unique)
    return [EVERYWHERE, *(name for name in masks if name != EVERYWHERE)]
