"""What a swap run takes."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from functools import cache
from pathlib import Path

from cos_interp.analyses.driver.kept import keeps
from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit import pair_file
from cos_interp.analyses.kit.foreseen import SOME, Nothing, blocks_of_rows, groups, of_side, recordings
from cos_interp.analyses.kit.grid import EVERYWHERE, SELF, Cell
from cos_interp.analyses.kit.problems import problems
from cos_interp.analyses.swap import SwapConfig
from cos_interp.analyses.swap.cells import cells, layers_of, places
from cos_interp.analyses.swap.measure import pieces
from cos_interp.analyses.swap.recordings import ORDER, use_of
from cos_interp.analyses.swap.sides import Piece, donors_of
from cos_interp.interp.patches import Patch
from cos_interp.interp.sweeping import spanned

CLIPS = 6  # of a pair: both sides, and the pair's and a random item's tokens at one step and at every step


def foresee(config: SwapConfig, outlook: Outlook) -> list[Use]:
    """The recordings of every pair and of the donors of its controls, and the swaps."""
    asked, own = [piece for piece, _ in pieces(config)], config.own
    donors = {piece: _donors(config, piece) for piece in asked}
    most_donors = max(map(len, donors.values()), default=2)
    use = use_of(config, outlook, len(asked), ORDER[:most_donors])  # the run itself is one of the donors
    assert use.kept is not None
    runs = [run for piece in asked for run in _runs(config, outlook, piece, donors[piece])]
    again = 0 if own else len(asked)
    sides = recordings(outlook, runs, use.kept, pairs=again, again=again)
    blocks = sum(_blocks(config, _receiving(config, outlook, piece), piece, donors[piece]) for piece in asked)
    shown = sum(keeps(piece[2], outlook.shape.clip_bytes) for piece in asked) * CLIPS * outlook.shape.clip_bytes
    more = "none of pairs that the scorer does not accept" if own else "none of the same answer where no noise gives it"
    judged = not own or config.scored
    return [sides, Use("swaps", blocks=blocks, rows=use.rows, decoded=use.decoded, disk=shown, bound=judged,
                       more=more if judged else "")]  # fmt: skip


def _receiving(config: SwapConfig, outlook: Outlook, piece: Piece) -> Outlook:
    """What is known of the run that receives in a pair, as its line says it."""
    if config.prompts is not None:
        return outlook.at(problems(config)[piece[2]].call)
    return of_side(outlook, config, piece[2], 1)


def _runs(config: SwapConfig, outlook: Outlook, piece: Piece, donors: list[str]) -> list[Outlook]:
    """The recorded runs of a pair: the run itself, and those of its donors, each as its line says it."""
    if not config.own:
        return [outlook] * len(donors)
    target, index = _receiving(config, outlook, piece), piece[2]
    if config.prompts is not None:
        beside = [outlook.at(line.call) for line in donors_of(problems(config), index).values()]
    else:
        found = pair_file.read(Path(str(config.pair_file)), config)
        away = pair_file.stranger(found, index)
        beside = [of_side(outlook, config, index, 0), *([] if away is None else [outlook.at(away.call)])]
    return [target, *beside, target]  # again, from another noise


def _donors(config: SwapConfig, piece: Piece) -> list[str]:
    """The donors of a pair, the run itself among them."""
    if not config.own:
        return ["pair", SELF, "random item", "same answer"]
    if config.pair_file is not None:
        beside = pair_file.stranger(pair_file.read(Path(config.pair_file), config), piece[2]) is not None
    else:
        beside = "random item" in donors_of(problems(config), piece[2])
    return ["pair", SELF, *(["random item"] if beside else []), "same prompt"]


def _groups(config: SwapConfig, outlook: Outlook, piece: Piece) -> list[str]:
    """The token sets of a pair."""
    task, kind, index = piece
    if kind == "own":
        there = config.pair_file is not None and bool(pair_file.boxes(Path(config.pair_file))[index])
    else:
        there = bool(groups(outlook, config, task, kind, index))
    named = ["object", "random"] if there else []
    return [EVERYWHERE, *(name for name in config.tokens if name in named)]


def _blocks(config: SwapConfig, outlook: Outlook, piece: Piece, donors: list[str]) -> int:
    """Block calls of the swaps of a pair, where what they have in common runs once."""
    done, given = set[Hashable](), cache(lambda *_: Nothing())
    run = outlook.run()

    def patch(cell: Cell, steps: tuple[int, ...]) -> Patch:
        donor = given(cell.donor, cell.site, cell.layer, cell.update)
        return Patch(cell.hook, steps, donor, run.branches, None if cell.group == EVERYWHERE else SOME)

    rows = (patch(cell, steps) for steps, made in _cells(config, outlook, piece, donors) for cell in made)
    return blocks_of_rows(outlook, rows, done)


def _cells(config: SwapConfig, outlook: Outlook, piece: Piece, donors: list[str]) -> Iterator[tuple[tuple[int, ...], list[Cell]]]:
    """The swaps of a pair by place, with the steps in which those act."""
    layers, names = layers_of(outlook.model, config), _groups(config, outlook, piece)
    for step, span in places(config):
        steps = spanned(step, outlook.steps, "single" if span == "single" else "from")
        yield steps, list(cells(config, (step, span), layers, names, donors))
