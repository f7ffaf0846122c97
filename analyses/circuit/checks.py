"""A circuit on a pair that the search has not seen: alone, left out, knocked out, one less, random ones, a foreign donor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
from torch import Tensor

from cos_interp.analyses.circuit import HEADS, Circuit, CircuitConfig, Part
from cos_interp.analyses.circuit.bench import Bench
from cos_interp.analyses.circuit.components import Spot, spots
from cos_interp.analyses.driver.kept import Clip, keeps
from cos_interp.analyses.driver.statistics import projection
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.pairs import Side, stranger
from cos_interp.analyses.kit.shown import read_sides
from cos_interp.analyses.kit.split_pairs import FIRST_UNSEEN

DRAWS = 3  # random sets a pair
ALONE, LEFT, LESS, NARROW, WHOLE, FOREIGN = "circuit", "all but it", "one less", "narrowed", "everything", "random item"
RANDOM, RANDOM_LEFT = "random set", "all but a random set"
OUT, RANDOM_OUT = "knocked out", "a random set knocked out"  # of the donor's run
READS = EARLY, LATE, READ = "early read", "late read", "whole read"  # of the part that reads, see :func:`reads`
# as a reader calls them
WAYS = {
    ALONE: "the circuit alone", NARROW: "the same, narrowed", LESS: "best set with one component less", RANDOM: "a random set",
    FOREIGN: "the circuit from a random item", WHOLE: "everything", LEFT: "everything but the circuit",
    RANDOM_LEFT: "everything but a random set", OUT: "the circuit set back in the donor's run",
    RANDOM_OUT: "a random set set back in the donor's run", EARLY: "what reads, in the blocks up to the circuit's last",
    LATE: "what reads, in the blocks after", READ: "what reads, in all blocks",
}  # fmt: skip
# the ways whose videos are shown
SHOWN = {way: WAYS[way] for way in (ALONE, EARLY, LATE, READ, LEFT, OUT, FOREIGN)} | {f"{RANDOM} 0": WAYS[RANDOM]}


def checked(bench: Bench, config: CircuitConfig, circuit: Circuit, index: int) -> tuple[list[Row], list[Clip]]:
    """One row a way: its effect, whose answer the verifier or scorer reads, and of a task's pair how much of either is shown. The
    clips of both runs and of some ways, where anybody reads them and the pair is one of the first.

    What is knocked out acts in the donor's run: a set has the receiving run's values there, and the effect is the way back to it.
    """
    alone, narrow, less = bench.rows([circuit.components, circuit.narrow, circuit.smaller])
    rows = {ALONE: alone, NARROW: narrow, LESS: less, LEFT: bench.without(circuit.components), WHOLE: bench.without(())}
    for name, part, layers in reads(circuit, spots(bench.model)):
        rows[name] = [patch for layer in layers for patch in bench.whole(part, layer)]
    other = bench.reversed
    out = {OUT: other.rows([circuit.components])[0]}
    for draw in range(DRAWS):
        chance, at = bench.random(circuit.components, draw)
        rows[f"{RANDOM} {draw}"], rows[f"{RANDOM_LEFT} {draw}"] = at.rows([chance])[0], at.without(chance)
        out[f"{RANDOM_OUT} {draw}"] = at.reversed.rows([chance])[0]
    if config.pair_file is None:
        rows[FOREIGN] = bench.rows([circuit.components], _foreign(bench, config, index))[0]
    made: list[Row] = []
    shown: list[Clip] = []
    ended = [
        *zip(rows, bench.latents(list(rows.values())), strict=True),
        *zip(out, other.latents(list(out.values())), strict=True),
    ]
    for way, latent in ended:
        row, frames = _read(bench, latent)
        if way in out:
            row["effect"] = 1 - row["effect"]
        if frames is not None and way in SHOWN and keeps(index - FIRST_UNSEEN, frames.nbytes):
            shown.append((SHOWN[way], len(made), frames))
        made.append({"table": "check", "way": way.rstrip(" 0123456789"), **row})
    sides = (("own", bench.target), ("donor", bench.donor)) if shown else ()
    return made, [*((name, None, side.recording.run.decode()[0]) for name, side in sides), *shown]


def reads(circuit: Circuit, there: Sequence[Spot]) -> list[tuple[str, Part, list[int]]]:
    """What reads for the circuit, in its early blocks (up to the circuit's last), in those after, and in all: attention to the
    prompt where the circuit has any, else to the video. Empty where no block comes after, or the circuit has no attention.

    Who moves and what is painted may be read at two times: is the video right with the early read alone?
    """
    part: Part | None = next((part for part in get_args(Part) if part in HEADS and _last(circuit, part) >= 0), None)
    if part is None:
        return []
    layers = [layer for name, layer in there if name == part]
    early = [layer for layer in layers if layer <= _last(circuit, part)]
    late = layers[len(early) :]
    return [(EARLY, part, early), (LATE, part, late), (READ, part, layers)] if late else []


def _last(circuit: Circuit, part: str) -> int:
    return max((one.layer for one in circuit.components if one.part == part), default=-1)


def _foreign(bench: Bench, config: CircuitConfig, index: int) -> Side:
    """A random other item's run, whose prompt is none of the pair's."""
    prompts = [side.problem.call["prompt"] for side in (bench.target, bench.donor)]
    return bench.recorder(stranger(config.task_name, config, index, unlike=prompts))


def _read(bench: Bench, latent: Tensor) -> tuple[Row, np.ndarray | None]:
    run, target, donor = bench.target.recording.run, bench.target, bench.donor
    row: Row = {"effect": projection(latent, run.latents, donor.recording.run.latents)}
    if not (target.problem.judged and donor.problem.judged):
        return row, None
    frames = bench.model.decode(run.shown(latent))[0]
    return row | read_sides(target.problem, donor.problem, frames), frames
