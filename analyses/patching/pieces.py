"""The pairs of a patching run: kinds and numbers of the task's own, or those of a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from cos_interp.analyses.kit import pair_file
from cos_interp.analyses.kit.kinds import PairKind
from cos_interp.analyses.kit.problems import Problem, chosen_steps
from cos_interp.analyses.patching import PAIRS, PatchingConfig
from cos_interp.interp.sweeping import Span

OWN: Final = "own"  # the kind of pairs from a file


@dataclass(frozen=True)
class Piece:
    """One pair. Of a pair from a file: its sides, clean and corrupt, the donor of its random control, and its boxes."""

    kind: PairKind | Literal["own"]
    index: int
    sides: pair_file.Sides | None = None
    stranger: Problem | None = None
    boxes: pair_file.Boxes = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.index:03d}"

    @property
    def one_noise(self) -> bool:
        """Whether both sides start from the same noise."""
        return self.kind != "seed" if self.sides is None else self.sides[0].seed == self.sides[1].seed

    @property
    def map_unit(self) -> str:
        """The name of the unit of its gradient map."""
        return f"{self.name}-map"

    @property
    def blocks_unit(self) -> str:
        """The name of the unit of its blocks, of a coarse grid."""
        return f"{self.name}-blocks"

    def unit(self, step: int | None = None) -> str:
        """The name of the unit of a step, or of the pair itself."""
        return f"{self.name}-pair" if step is None else f"{self.name}-step-{step:03d}"


def span_of(config: PatchingConfig, one_noise: bool) -> Span:
    """The range of steps of a pair. ``auto``: from step k on, but single steps between two noises.

    A donor that started from another noise carries it in its activations: held in place over many steps they give the
    velocity of another x_t, and the result leaves the data.
    """
    if config.span != "auto":
        return config.span
    return "from" if one_noise else "single"


def steps_of(config: PatchingConfig, piece: Piece) -> tuple[int, ...]:
    """The patched steps of a pair: those that were asked for; else all, or of a range the one step that makes it whole."""
    every = chosen_steps(config, config.num_inference_steps)
    if config.steps is not None:
        return every
    return {"single": every, "from": every[:1], "until": every[-1:]}[span_of(config, piece.one_noise)]


@dataclass(frozen=True)
class Part:
    """A piece of work: one step of a pair; without a step what decides which of its cells are finished: its blocks (``--coarse``)
    or its gradient map."""

    pair: Piece
    step: int | None = None


def pieces(config: PatchingConfig) -> list[tuple[Part, list[str]]]:
    """A piece a step of a pair, of which the first says what the pair is, so that one pair keeps all cores at work; of a coarse
    grid its blocks do that, with a gradient map the map."""
    made: list[tuple[Part, list[str]]] = []
    for piece in pairs_of(config):
        first = [piece.unit()]
        if ahead := _ahead(config, piece):
            made.append((Part(piece), [*first, *ahead]))
            first = []
        for step in steps_of(config, piece):
            made.append((Part(piece, step), [*first, piece.unit(step)]))
            first = []
    return made


def needs(config: PatchingConfig, part: Part) -> list[str]:
    """Which cells of a coarse grid are finished follows from the blocks of all pairs, which exact cells a gradient map is held
    against from the map."""
    if part.step is None:
        return []
    return [unit for piece in (pairs_of(config) if config.coarse is not None else [part.pair]) for unit in _ahead(config, piece)]


def _ahead(config: PatchingConfig, piece: Piece) -> list[str]:
    """The units of a pair that say which of its cells are finished."""
    maps = [piece.map_unit] if config.method == "gradient" else []
    return maps + ([piece.blocks_unit] if config.coarse is not None else [])


def pairs_of(config: PatchingConfig) -> list[Piece]:
    """The pairs of a run."""
    if config.pair_file is None:
        made = [Piece(kind, index) for kind in config.pair_kinds for index in range(config.pairs or PAIRS)]
    else:
        found = pair_file.read(Path(config.pair_file), config)
        boxes = pair_file.boxes(Path(config.pair_file))
        made = [Piece(OWN, i, sides, pair_file.stranger(found, i), boxes[i]) for i, sides in enumerate(found[: config.pairs])]
    return made


def units_of(config: PatchingConfig, piece: Piece) -> list[str]:
    """The names of a pair's units, in the order in which they are made."""
    return [piece.unit(), *_ahead(config, piece), *(piece.unit(step) for step in steps_of(config, piece))]
