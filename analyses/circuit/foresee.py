"""What a circuit takes: maps, the search, its tests. The search follows what it finds, so that most of it is a bound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import comb

from cos_interp.analyses.circuit import CLOSER, SITES, CircuitConfig
from cos_interp.analyses.circuit.checks import DRAWS, SHOWN
from cos_interp.analyses.circuit.components import Spot, has_heads, spots
from cos_interp.analyses.circuit.paths import MOST, ROADS
from cos_interp.analyses.circuit.pieces import pieces
from cos_interp.analyses.circuit.recordings import use_of
from cos_interp.analyses.circuit.search import NEXT
from cos_interp.analyses.driver.kept import keeps
from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.kit.foreseen import Nothing, blocks_of_rows, of_side, recordings, split_masks
from cos_interp.analyses.kit.split_pairs import counts
from cos_interp.interp.patches import Patch

WAYS = 9  # rows of a test beside the random sets: alone, narrowed, one less, all but it, everything, knocked out, three reads
UNFOUND = "fewer where fewer places have an effect, or no set keeps enough"


def foresee(config: CircuitConfig, outlook: Outlook) -> list[Use]:
    """Maps of every pair of the search, the sets that are tried on them, paths, and the tests on unseen pairs."""
    asked = [piece for piece, _ in pieces(config)]
    seen, unseen = counts(config, not config.check)
    stage = lambda name: sum(piece.stage == name for piece in asked)
    rows = {name: sum(count) for name, count in (("fine", _fine(outlook, config)), ("search", _sets(outlook, config)))}
    drawn = WAYS + 3 * DRAWS + (config.pair_file is None)
    coarse = sum(blocks_of_rows(own, _coarse(own)) for own in (of_side(outlook, config, place, 1) for place in range(seen)))
    recorded = _recordings(config, outlook, stage("coarse") + stage("fine") + stage("paths") + seen * stage("search"), unseen)
    looked, tested = _whole(config, outlook, range(seen)), _whole(config, outlook, range(seen, seen + unseen))
    made = [Use("maps of whole blocks", blocks=coarse, rows=config.batch)]
    if seen:
        made += [
            Use("maps of places", blocks=looked * rows["fine"], bound=True, more=UNFOUND),
            Use("sets that are tried", blocks=looked * rows["search"], rows=config.batch, bound=True, more=UNFOUND),
            Use("words that are read", runs=stage("paths"), bound=True, more=UNFOUND),
            Use("paths between components", blocks=looked * _paths(outlook), bound=True, more=UNFOUND),
        ]
    shown = sum(keeps(index, outlook.shape.clip_bytes) for index in range(unseen)) * (2 + len(SHOWN))
    tests = Use("tests on unseen pairs", blocks=tested * drawn, rows=config.batch, decoded=1, bound=True,
                disk=shown * outlook.shape.clip_bytes * int(config.pair_file is None or config.scored),
                more="less of each where a set acts late, none without a circuit")  # fmt: skip
    return [recorded, *(made if seen else []), tests]


def _whole(config: CircuitConfig, outlook: Outlook, places: Iterable[int]) -> float:
    """Block calls of a row that runs from its first step on in each of some pairs: in the side that takes more, both receive."""
    return sum(max(of_side(outlook, config, place, side).blocks() for side in (0, 1)) for place in places)


def _recordings(config: CircuitConfig, outlook: Outlook, looked: int, unseen: int) -> Use:
    """The recorded pairs, those of a stage again; a foreign run with each test of a task's pair."""
    stages = list(dict.fromkeys(piece.stage for piece, _ in pieces(config)))
    every = [use_of(config, outlook, stage, looked + unseen).kept for stage in stages]
    kept = max((one for one in every if one is not None), key=lambda one: sum(one.whole))
    seen, of_task = counts(config, not config.check)[0], config.pair_file is None
    places = [*[place for place in range(seen) for _ in range(looked // seen)], *range(seen, seen + unseen)]
    runs = [of_side(outlook, config, place, side) for place in places for side in (0, 1)]
    foreign = [outlook] * unseen if of_task else []
    sought = looked + unseen if config.solved and of_task else 0
    return replace(recordings(outlook, [*runs, *foreign], kept, pairs=sought), bound=True)


def _coarse(outlook: Outlook) -> list[list[Patch]]:
    """Each part of each block in all steps, and all together."""
    run = outlook.run()
    rows = [
        [Patch(f"blocks.{layer}.{SITES[part]}", range(run.steps), Nothing(), run.branches)]
        for part, layer in spots(outlook.model)
    ]
    return [*rows, [patch for row in rows for patch in row]]


def _groups(outlook: Outlook, config: CircuitConfig) -> int:
    """Token groups of a pair: of the search's pairs, the most."""
    return max((len(split_masks(outlook, config, index)) for index in range(counts(config)[0])), default=1)


def _fine(outlook: Outlook, config: CircuitConfig) -> Iterator[int]:
    """Rows of a pair's closer look at most: by group, head and first step of each place; the stream of each block by group."""
    groups, there = _groups(outlook, config), spots(outlook.model)
    for part, _ in there if config.full else _costliest(outlook, there):
        yield groups + (_heads(outlook) if has_heads(outlook.model, part) else 0) + outlook.steps
    yield outlook.model.layers * groups


def _costliest(outlook: Outlook, there: Sequence[Spot]) -> list[Spot]:
    """The places of which a closer look takes the most rows."""
    return sorted(there, key=lambda spot: not has_heads(outlook.model, spot[0]))[:CLOSER]


def _sets(outlook: Outlook, config: CircuitConfig) -> Iterator[int]:
    """Sets that the search tries at most: growing, with one less as long as that is enough, narrowed."""
    candidates = min(CLOSER, len(spots(outlook.model))) * _groups(outlook, config)
    most = min(config.most, candidates)
    yield sum(candidates - size for size in range(most))
    yield sum(comb(size + min(NEXT, candidates - size), size - 1) for size in range(2, most + 1))
    heads = sum(range(2, _heads(outlook) + 1))
    yield most * (2 * (outlook.steps - 1) + heads) + 1


def _paths(outlook: Outlook) -> int:
    """Runs of a pair's paths at most: between every two components within a step, by every road, and across steps."""
    two, roads = comb(MOST, 2), max(map(len, ROADS.values()))
    within = (MOST - 1) + two * roads + two * (1 + roads)
    return within + 2 * MOST + MOST * MOST


def _heads(outlook: Outlook) -> int:
    return outlook.model.adapter.width(outlook.shape.engine.module)[1]
