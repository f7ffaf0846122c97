"""Seeds that are looked at early: several are begun, the most promising are finished, and no step is computed twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from diffusers.utils import BaseOutput
from torch import Tensor

from cos_interp.interp.batch import several_seeds
from cos_interp.interp.call import checked_output_type
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patching import restart
from cos_interp.interp.run.clock import Call
from cos_interp.interp.run.director import Around, Director
from cos_interp.interp.run.engine import ExpertEngine
from cos_interp.interp.scalars import finite
from cos_interp.interp.selecting import numbers, whole
from cos_interp.interp.trajectory import Run


@dataclass(frozen=True, eq=False)
class Look:
    """What is seen of one seed after a step. ``latents``: the clean estimate ``[1, channel, frame, row, col]``; :attr:`frames`,
    the same decoded when it is asked for, uint8 ``[pixel frame, height, width, 3]``."""

    seed: int
    step: int
    sigma: float
    latents: Tensor
    run: Run = field(repr=False)

    @cached_property
    def frames(self) -> np.ndarray:
        return self.run.decode(self.step)[0]


class _Until(Around):
    """Computes nothing after a step: the loop goes on with what each branch gave last, and what it makes is not used."""

    def __init__(self, inner: Director, last: int):
        super().__init__(inner)
        self.last, self._gave = last, dict[tuple[str, ...], Any]()

    def call(self, calls: tuple[Call, ...], engine: ExpertEngine, kwargs: dict[str, Any]) -> Any:
        branches = tuple(call.branch for call in calls)
        if calls[0].step <= self.last:
            self._gave[branches] = self.inner.call(calls, engine, kwargs)
        return self._gave[branches]


def begun(model: HookedVideoPipeline, step: int, **kwargs: Any) -> Run:
    """A run of one video that is computed up to a step and the step itself; what it holds of later ones means nothing.

    :func:`finished` goes on from it. InterpError for hooks that are on, which may expect every step.
    """
    if model.has_hooks:
        raise InterpError("seeds are screened without edits: leave the `with model.hooks(...)` block")
    return model.run_directed(lambda inner: _Until(inner, step), **kwargs)


def finished(model: HookedVideoPipeline, run: Run, step: int) -> Run:
    """The rest of a run that :func:`begun` computed up to a step, bit for bit as if it had been made at once."""
    return run if step + 1 == run.steps else restart(model, run, step + 1, run.x_t[step + 1])


@dataclasses.dataclass
class ScreenedOutput(BaseOutput):
    """``frames``: a video for each seed that was finished, the most promising first, as the pipeline's own output has them.
    ``seeds``: of these. ``scores``: what the look said of every seed that was begun. ``runs``: of those that were finished."""

    frames: Any
    seeds: list[int]
    scores: dict[int, float]
    runs: list[Run]


class SeedScreen:
    """A diffusers video pipeline that begins several seeds, looks at each after a step, and finishes the best:
    ``SeedScreen(pipe, seeds=4, step=5, look=look)(prompt=..., image=...).frames[0]``.

    ``seeds``: how many, or which; two at least. ``look`` gets a :class:`Look` and gives a number, larger for what promises more;
    of equal ones the first counts. ``keep``: how many are finished. They go on from the step after the look, and end with the
    bits that they would have had without it, on any scheduler: K seeds of T steps cost K (step + 1) + keep (T - step - 1) steps.

    Raises InterpError for fewer than two different seeds, a step that the run does not have, a look that gives no number, and a
    ``seed``, a ``generator`` or several prompts in the call.
    """

    def __init__(self, pipe: Any, look: Callable[[Look], float], step: int, seeds: int | Sequence[int] = 4, keep: int = 1):
        self.model = HookedVideoPipeline.from_pipeline(pipe)
        self.seeds = several_seeds(seeds, "a screen")
        if not callable(look):
            raise InterpError(f"look is {type(look).__name__}: give a function of a Look that returns a number")
        if whole(keep) is None or not 1 <= keep <= len(self.seeds):
            raise InterpError(f"keep={keep!r}: give how many of the {len(self.seeds)} seeds are finished, 1 or more")
        self.look, self.step, self.keep = look, step, keep

    def __repr__(self) -> str:
        return f"SeedScreen({type(self.model.pipe).__name__}, seeds={self.seeds}, step={self.step}, keep={self.keep})"

    def __call__(self, *, output_type: str = "np", **kwargs: Any) -> ScreenedOutput:
        for name in ("seed", "generator", "latents"):
            if kwargs.get(name) is not None:
                raise InterpError(f"{name}: a screen has seeds of its own, SeedScreen(pipe, seeds=[...], ...): leave it out")
        if isinstance(kwargs.get("prompt"), list):
            raise InterpError("a screen takes one prompt at a time: call it once a prompt")
        steps = kwargs.get("num_inference_steps") or self.model.default("num_inference_steps")
        (step,) = _one(numbers(self.step, steps, "step"), self.step)
        output_type = checked_output_type(output_type)
        runs = {seed: begun(self.model, step, **kwargs, seed=seed) for seed in self.seeds}
        scores = {seed: self._score(Look(seed, step, run.sigmas[step], run.x0hat[step], run)) for seed, run in runs.items()}
        best = sorted(self.seeds, key=lambda seed: -scores[seed])[: self.keep]
        made = [finished(self.model, runs[seed], step) for seed in best]
        frames = [
            run.latents if output_type == "latent" else self.model.frames(run.shown(run.latents), output_type) for run in made
        ]
        return ScreenedOutput(frames=[video[0] for video in frames], seeds=best, scores=scores, runs=made)

    def _score(self, look: Look) -> float:
        said = self.look(look)
        score = float(said) if isinstance(said, bool | np.bool_) else finite(said)
        if score is None:
            raise InterpError(f"the look at seed {look.seed} gave no finite number: return one, larger for what promises more")
        return score


def _one(found: Any, asked: Any) -> tuple[int]:
    if len(found) != 1:
        raise InterpError(f"step={asked!r}: a screen looks once, give one step")
    return (found[0],)
