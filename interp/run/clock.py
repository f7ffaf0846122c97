"""The step clock: which part of which transformer forward is which (expert, step, branch)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Call:
    """One branch of one forward of a transformer.

    ``index`` counts calls of the run and ``forward`` its forwards; they differ where both branches run in one forward of
    twice the batch. Users address steps and branches instead.
    """

    index: int
    step: int
    branch: str
    expert: str
    sigma: float
    timestep: float
    forward: int = 0


@dataclass(frozen=True)
class Hook:
    """What an edit function is told: the full name, and where in the run the activation belongs."""

    name: str
    layer: int | None
    step: int
    sigma: float
    timestep: float
    branch: str | None
    expert: str | None
