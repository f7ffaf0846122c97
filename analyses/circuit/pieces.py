"""The parts of the work: maps on the search's pairs, coarse then fine; the search; tests on unseen pairs; paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cos_interp.analyses.circuit import CircuitConfig
from cos_interp.analyses.kit import pair_file
from cos_interp.analyses.kit.pairs import NoPair, Pair, Recorder, find_pair
from cos_interp.interp.errors import InterpError

Stage = Literal["coarse", "fine", "search", "check", "paths"]
FIRST_UNSEEN = 1000  # number of the first pair that the search does not see, however many it sees
SEARCH = "search"


@dataclass(frozen=True)
class Piece:
    """One unit of work: a stage, and the pair that it is about (the search is about all of its pairs)."""

    stage: Stage
    index: int = 0

    @property
    def name(self) -> str:
        return SEARCH if self.stage == SEARCH else f"{self.stage}-{self.index:04d}"


def counts(config: CircuitConfig) -> tuple[int, int]:
    """How many pairs are searched on and tested on: of a file its first ones, and what is left of it."""
    if config.pair_file is None:
        return (0 if config.check else config.pairs), config.check_pairs
    there = len(pair_file.read(Path(config.pair_file), config))
    seen = 0 if config.check else min(config.pairs, there)
    return seen, min(config.check_pairs, there - seen)


def pieces(config: CircuitConfig) -> list[tuple[Piece, list[str]]]:
    seen, unseen = counts(config)
    made = [Piece(stage, n) for stage in ("coarse", "fine") for n in range(seen)]
    made += [] if config.check else [Piece(SEARCH)]
    made += [Piece("paths", n) for n in range(seen)]
    made += [Piece("check", FIRST_UNSEEN + n) for n in range(unseen)]
    return [(piece, [piece.name]) for piece in made]


def needs(config: CircuitConfig, piece: Piece) -> list[str]:
    """What is refined was found coarsely on all pairs, and what is tested by the search."""
    of = lambda stage: [Piece(stage, n).name for n in range(counts(config)[0])]
    if piece.stage == "fine":
        return of("coarse")
    if piece.stage == SEARCH:
        return of("coarse") + of("fine")
    return [] if piece.stage == "coarse" or config.check else [SEARCH]


def pair_of(recorder: Recorder, config: CircuitConfig, index: int) -> tuple[Pair, pair_file.Boxes]:
    """The recorded pair of a number, and its boxes. NoPair where the model does not solve one, or makes one video of both sides."""
    if config.pair_file is None:
        return find_pair(recorder, config.task, "prompt", index, config.unique, config.solved), {}
    path, (seen, _) = Path(config.pair_file), counts(config)
    place = index - FIRST_UNSEEN + seen if index >= FIRST_UNSEEN else index
    clean, corrupt = (recorder(side) for side in pair_file.read(path, config)[place])
    found = Pair("own", corrupt, clean)
    if not found.one_noise:
        raise InterpError(f"{corrupt.problem.source}: a circuit needs both sides from one noise: give them the same seed, or none")
    if corrupt.recording.run.latents.equal(clean.recording.run.latents):
        raise NoPair("the model makes the same video of both sides, so there is no difference to move along")
    return found, pair_file.boxes(path)[place]
