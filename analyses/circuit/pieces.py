"""The parts of the work: maps on the search's pairs, coarse then fine; the search; tests on unseen pairs; paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from cos_interp.analyses.circuit import CircuitConfig
from cos_interp.analyses.kit.split_pairs import FIRST_UNSEEN, counts

Stage = Literal["coarse", "fine", "search", "check", "paths"]
SEARCH: Final = "search"


@dataclass(frozen=True)
class Piece:
    """One unit of work: a stage, and the pair that it is about (the search is about all of its pairs)."""

    stage: Stage
    index: int = 0

    @property
    def name(self) -> str:
        return SEARCH if self.stage == SEARCH else f"{self.stage}-{self.index:04d}"


def pieces(config: CircuitConfig) -> list[tuple[Piece, list[str]]]:
    seen, unseen = counts(config, not config.check)
    made = [Piece("coarse", n) for n in range(seen)] + [Piece("fine", n) for n in range(seen)]
    made += [] if config.check else [Piece(SEARCH)]
    made += [Piece("paths", n) for n in range(seen)]
    made += [Piece("check", FIRST_UNSEEN + n) for n in range(unseen)]
    return [(piece, [piece.name]) for piece in made]


def needs(config: CircuitConfig, piece: Piece) -> list[str]:
    """What is refined was found coarsely on all pairs, and what is tested by the search."""
    seen = range(counts(config, not config.check)[0])
    if piece.stage == "fine":
        return [Piece("coarse", n).name for n in seen]
    if piece.stage == SEARCH:
        return [Piece("coarse", n).name for n in seen] + [Piece("fine", n).name for n in seen]
    return [] if piece.stage == "coarse" or config.check else [SEARCH]
