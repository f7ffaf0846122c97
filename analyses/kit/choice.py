"""A choice made on one half of the problems and tested on the other: every second one of a task chooses, from the first on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cos_interp.analyses.driver.kept import Kept, keeps, right
from cos_interp.analyses.driver.settings import SuiteConfig
from cos_interp.analyses.kit.problems import Problem, problems

SCHEDULE = "schedule"  # the unit of the choice
TEST = "test"


@dataclass(frozen=True)
class Piece:
    """A problem that chooses or is tested, by its stage; or, without one, the choice."""

    stage: str
    problem: Problem | None = None

    @property
    def name(self) -> str:
        return SCHEDULE if self.problem is None else f"{self.stage}-{self.problem.name}"


def choosing(config: SuiteConfig, stage: str) -> list[Piece]:
    """The problems that choose."""
    return [Piece(stage, problem) for problem in problems(config) if _chooses(problem)]


def pieces(config: SuiteConfig, stage: str) -> list[tuple[Piece, list[str]]]:
    """``stage``: what is done of a problem that chooses. Then the choice, and its tests."""
    tested = [Piece(TEST, problem) for problem in problems(config) if not _chooses(problem)]
    return [(piece, [piece.name]) for piece in [*choosing(config, stage), Piece(SCHEDULE), *tested]]


def needs(config: SuiteConfig, piece: Piece, stage: str) -> Sequence[str]:
    """All problems that choose come before the choice, and the choice before its tests."""
    if piece.stage == TEST:
        return [SCHEDULE]
    return [] if piece.stage == stage else [other.name for other in choosing(config, stage)]


def tested(one: Kept) -> Kept:
    """The clips of a tested problem under the problem's name, as findings and figures name it."""
    return replace(right(one), unit=one.unit.removeprefix(f"{TEST}-"))


def kept(problem: Problem, clip_bytes: int) -> bool:
    """Whether a tested problem's clips, of so many bytes each, are kept: by its place among those of its task that are tested."""
    return keeps(problem.index // 2, clip_bytes)


def _chooses(problem: Problem) -> bool:
    return problem.index % 2 == 0
