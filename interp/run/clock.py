"""The step clock: which part of which transformer forward is which (expert, step, branch), and at which noise level."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cos_interp.interp.errors import InterpError
from cos_interp.interp.run.prediction import clean_at

BRANCH_NAMES = {"cond": "cond", "uncond": "uncond", "pred_cond": "cond", "pred_uncond": "uncond", "cond_uncond": None}


@dataclass(frozen=True)
class Step:
    """A denoising step: its index from 0, its noise level and timestep (nan before the pipeline has set its timesteps)."""

    index: int
    sigma: float
    timestep: float


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
    """What an edit function is told: the full name, and where in the run the activation belongs.

    ``layer`` is None outside the blocks, ``branch`` and ``expert`` are None between calls (``hook_x_t``, ``hook_x0hat``).
    ``sigma`` is the noise level of the step, the coefficient of the noise in x_t, and ``timestep`` the scheduler's own number
    for it; both are nan where the pipeline sets its timesteps after it prepares ``hook_x_t`` of step 0.
    """

    name: str
    layer: int | None
    step: int
    sigma: float
    timestep: float
    branch: str | None
    expert: str | None

    @property
    def block(self) -> int:
        """The layer of a site inside a block. InterpError outside the blocks."""
        if self.layer is None:
            raise InterpError(f"{self.name} lies outside the blocks and has no layer")
        return self.layer


class StepClock:
    """Counts the forwards and steps of a run, and says of each which branches and which noise level it has.

    ``doubled`` and ``in_turn`` are those of the :class:`~cos_interp.interp.families.adapter.Adapter`.
    """

    def __init__(self, scheduler: Any, doubled: tuple[str, str], in_turn: tuple[str, str]):
        self.scheduler, self.doubled, self.in_turn = scheduler, doubled, in_turn
        self.rows = 0  # videos of the run
        self.step = 0
        self.calls = 0
        self.forwards = 0
        self.forwards_in_step = 0
        self.branch: str | None = None  # where the pipeline says which it runs
        self.timed = False  # the pipeline has set its timesteps
        self.left_out = 0  # first timesteps that a video-to-video pipeline leaves out

    @property
    def planned(self) -> int | None:
        """Steps of the run; None before the pipeline has set its timesteps."""
        return len(self.scheduler.timesteps) - self.left_out if self.timed else None

    def planned_steps(self, planned: int) -> None:
        """The pipeline runs the last so many timesteps of its scheduler."""
        self.left_out = len(self.scheduler.timesteps) - planned

    def place(self, step: int) -> int:
        """Which of the scheduler's timesteps a step is."""
        return self.left_out + step

    def at(self, step: int) -> Step:
        """A step with its noise level and timestep."""
        if not self.timed:
            return Step(step, math.nan, math.nan)
        place = self.place(step)
        return Step(step, clean_at(self.scheduler, place).sigma, float(self.scheduler.timesteps[place]))

    @contextlib.contextmanager
    def within(self, name: str, step_index: int | None) -> Iterator[None]:
        """Around a call of which the pipeline says the branch; the step that it may say must be that of our own count."""
        if name not in BRANCH_NAMES:
            raise InterpError(f"the pipeline runs a {name!r} branch beside cond and uncond: switch that kind of guidance off")
        if step_index is not None and step_index != self.step:
            raise InterpError(f"the pipeline says step {step_index}, the step clock counts {self.step}: unsupported loop")
        self.branch = BRANCH_NAMES[name]
        try:
            yield
        finally:
            self.branch = None

    def forward(self, expert: str, batch: int) -> tuple[Call, ...]:
        """The calls of the next forward, in the order of its batch."""
        branches = self._branches(batch)
        if self.forwards_in_step > 1:
            raise InterpError(f"step {self.step} calls its transformer more than twice: unsupported kind of guidance")
        at = self.at(self.step)
        calls = tuple(
            Call(self.calls + i, self.step, branch, expert, at.sigma, at.timestep, self.forwards)
            for i, branch in enumerate(branches)
        )
        self.calls += len(calls)
        self.forwards += 1
        self.forwards_in_step += 1
        return calls

    def stepped(self) -> None:
        """The scheduler has made its step."""
        self.step += 1
        self.forwards_in_step = 0

    def _branches(self, batch: int) -> tuple[str, ...]:
        if batch == 2 * self.rows:
            return self.doubled
        if batch != self.rows:
            raise InterpError(
                f"the pipeline calls its transformer with {batch} rows for {self.rows} video(s): only conditional and "
                "unconditional branches are known; switch other kinds of guidance off"
            )
        return (self.branch or self.in_turn[min(self.forwards_in_step, 1)],)
