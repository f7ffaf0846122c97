"""Noise at a step against noise at a frame (CoS section 3.2, figures 3a and 3b), with the doses matched.

The paper's contrast is not one of equal dose: noise at a step touches all F latent frames once, noise at a frame touches one of
them at every step, S/F times as much in all. So each is also run at the other's dose: the same cells (frame, step) with noise,
taken together by step or by frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.kept import kept
from cos_interp.analyses.driver.statistics import distance
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit import perturb
from cos_interp.analyses.kit.kinds import Mode
from cos_interp.analyses.kit.problems import (
    Problem,
    arguments,
    chosen_steps,
    each_problem,
    generate,
    judge,
    needs_flow,
    verdict_columns,
)
from cos_interp.analyses.kit.rows import at_once
from cos_interp.analyses.noise import NoiseConfig, NoiseFacts, label
from cos_interp.interp.batch import chunks, joined
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patching import restart
from cos_interp.interp.trajectory import Run


@dataclass(frozen=True)
class Disturbance:
    """One disturbed run. ``steps`` and ``frames`` say where; ``kind`` names the comparison that it belongs to.

    step: all frames at one step; step-one-frame: one drawn frame at one step; step-spread: all frames at one step with the
    energy of one frame; frame: one frame at every step; frame-few-steps: one frame at the F steps of :func:`between`. Over all
    frames these disturb the cells (frame, step) that ``step`` at those steps does, so both have the same amount of noise.
    """

    kind: str
    mode: Mode
    dose: float
    steps: tuple[int, ...]
    frames: tuple[int, ...]
    nominal: float  # the asked dose; ``dose`` is lower for step-spread

    @property
    def facts(self) -> Row:
        frame = self.frames[0] if len(self.frames) == 1 else None
        step = self.steps[0] if self.kind.startswith("step") else None
        return {"kind": self.kind, "mode": self.mode, "dose": self.nominal, "step": step, "frame": frame}


def between(steps: int, count: int) -> tuple[int, ...]:
    """``count`` steps spread between the first, at which new noise is only another seed, and the last, after which nothing can
    repair it; all of these where there are fewer.

    >>> between(20, 5)
    (3, 6, 10, 13, 16)
    """
    if steps < 3:
        return tuple(range(steps))
    places = np.linspace(0, steps - 1, count + 2)[1:-1]
    return tuple(dict.fromkeys(min(max(1, round(k)), steps - 2) for k in places))


def steps_of(config: NoiseConfig, frames: int) -> tuple[int, ...]:
    """The disturbed steps: what was asked, or the first, the last, the middle one that the rules read, and those between."""
    if config.steps is not None:
        return chosen_steps(config)
    steps = config.num_inference_steps
    return tuple(sorted({0, steps // 2, steps - 1, *between(steps, frames)}))


def at_steps(config: NoiseConfig, frames: int, draw: int) -> list[Disturbance]:
    """Disturbances of one step each. ``draw`` picks the frame that is disturbed alone."""
    out = []
    for step in steps_of(config, frames):
        one = int(np.random.default_rng([draw, step]).integers(frames))
        for mode in config.modes:
            for dose in config.doses:
                low = perturb.dose_for_share(mode, dose, 1 / frames)
                out.append(Disturbance("step", mode, dose, (step,), tuple(range(frames)), dose))
                out.append(Disturbance("step-one-frame", mode, dose, (step,), (one,), dose))
                out.append(Disturbance("step-spread", mode, low, (step,), tuple(range(frames)), dose))
    return out


def at_frames(config: NoiseConfig, frames: int) -> list[Disturbance]:
    """Disturbances of one latent frame each, at every step and at as many steps as there are frames."""
    chosen = tuple(range(frames)) if config.frames is None else config.frames
    for frame in chosen:
        if not 0 <= frame < frames:
            raise InterpError(f"--frames {frame}: the latent has frames 0 to {frames - 1}")
    steps = config.num_inference_steps
    kinds = (("frame", tuple(range(steps))), ("frame-few-steps", between(steps, frames)))
    return [
        Disturbance(kind, mode, dose, steps, (frame,), dose)
        for mode in config.modes for dose in config.doses for frame in chosen for kind, steps in kinds
    ]  # fmt: skip


class Disturber:
    """Disturbs rows of a batch as their disturbances say, and sums up the energy that each was given."""

    def __init__(self, model: HookedVideoPipeline, config: NoiseConfig, run: Run, seed: int, rows: list[Disturbance]):
        self.rows, self.seed, self.estimate, self.sigmas = rows, seed, run.x0hat[0], run.sigmas
        frames, height, width = run.x_t[0].shape[2:]
        shape = (frames, height, width)
        self.masks = [perturb.region(shape, row.frames, config.rows, config.cols) for row in rows]
        self.patch = model.patch(run.x_t[0])
        self.energy = [0.0] * len(rows)

    def state(self, row: int, step: int, sigma: float, x_t: Tensor, x0hat: Tensor) -> Tensor:
        """``x_t [1, ...]`` of a row as disturbed at a step. All disturbances of one problem and step share their noise."""
        what = self.rows[row]
        noise = perturb.noise_like(x_t, self.seed, step)
        new = perturb.disturb(x_t, x0hat, sigma, what.mode, what.dose, noise, self.masks[row], self.patch)
        self.energy[row] += perturb.energy(x_t, new)
        return new

    def hooks(self) -> list[tuple[str, Any]]:
        """Edits for runs that are disturbed at several steps: renoise keeps the clean estimate of the step before."""

        def keep(x0hat: Tensor, hook: Any) -> None:
            self.estimate = x0hat

        def edit(x_t: Tensor, hook: Any) -> Tensor:
            estimate = self.estimate.expand(len(self.rows), *self.estimate.shape[1:])
            parts = [
                self.state(r, hook.step, self.sigmas[hook.step], x_t[r : r + 1], estimate[r : r + 1])
                if hook.step in row.steps
                else x_t[r : r + 1]
                for r, row in enumerate(self.rows)
            ]
            return torch.cat(parts)

        return [("hook_x0hat", keep), ("hook_x_t", edit)]


Done = tuple[Disturbance, Tensor, float]  # what, final latent [1, ...], energy


def run_steps(model: HookedVideoPipeline, config: NoiseConfig, problem: Problem, run: Run) -> Iterator[Done]:
    """All disturbances of one step: the steps before are not run again."""
    found = at_steps(config, run.x_t[0].shape[2], problem.seed)
    for step in dict.fromkeys(d.steps[0] for d in found):
        for rows in chunks([d for d in found if d.steps[0] == step], config.batch):
            disturber = Disturber(model, config, run, problem.seed, list(rows))
            sigma, x_t, x0hat = run.sigmas[step], run.x_t[step], run.x0hat[step]
            states = torch.cat([disturber.state(r, step, sigma, x_t, x0hat) for r in range(len(rows))])
            final = restart(model, run, step, states).latents
            yield from zip(rows, final.split(1), disturber.energy, strict=True)


def run_frames(model: HookedVideoPipeline, config: NoiseConfig, problem: Problem, run: Run) -> Iterator[Done]:
    """All disturbances of one frame at several steps."""
    call = arguments(model, config, problem)
    for rows in chunks(at_frames(config, run.x_t[0].shape[2]), at_once(model, config.batch)):
        disturber = Disturber(model, config, run, problem.seed, list(rows))
        final = model.run_with_hooks(fwd_hooks=disturber.hooks(), **joined([call] * len(rows))).latents
        yield from zip(rows, final.split(1), disturber.energy, strict=True)


def elsewhere(final: Tensor, base: Tensor, frames: tuple[int, ...]) -> float | None:
    """Distance to the undisturbed latent over the frames that were not disturbed; None when all were."""
    others = [f for f in range(base.shape[2]) if f not in frames]
    return distance(final[:, :, others], base[:, :, others]) if others else None


def measure(model: HookedVideoPipeline, config: NoiseConfig, problem: Problem) -> Unit:
    """A row for the undisturbed run and one for every disturbed one."""
    run = generate(model, config, problem)
    clip = model.decode(run.latents)[0]
    base, keeps = verdict_columns(judge(problem, clip)), problem.kept(clip.nbytes)
    nowhere = {"kind": "none", "mode": None, "dose": 0.0, "step": None, "frame": None}
    rows: list[Row] = [
        {**problem.facts, **nowhere, "sigma": None, "energy": 0.0, "distance": 0.0, "distance_elsewhere": None, **base}
    ]
    shown = [("undisturbed", 0, clip)]
    for what, final, energy in [*run_steps(model, config, problem, run), *run_frames(model, config, problem, run)]:
        row = {**problem.facts, **what.facts, "energy": energy, "distance": distance(final, run.latents)}
        row["distance_elsewhere"] = elsewhere(final, run.latents, what.frames)
        row["sigma"] = run.sigmas[row["step"]] if row["step"] is not None else None
        shows = keeps and _shown(config, what, run.latents.shape[2])
        clip = model.decode(final)[0] if problem.judged or shows else None
        if shows:
            shown.append((str(label(row)), len(rows), clip))
        rows.append(row | verdict_columns(None if clip is None else judge(problem, clip)))
    tensors, about = kept(shown if keeps else [])
    facts = NoiseFacts(
        sigmas=tuple(run.sigmas), prompt=problem.call["prompt"], scheduler=type(model.pipe.scheduler).__name__,
        few=between(run.steps, run.latents.shape[2]), **about,
    )  # fmt: skip
    return Unit(rows, tensors, facts)


def _shown(config: NoiseConfig, what: Disturbance, frames: int) -> bool:
    """Whether the video is shown: the middle step and the middle frame of each mode, at the first dose."""
    if what.nominal != config.doses[0]:
        return False
    steps, chosen = steps_of(config, frames), config.frames or tuple(range(frames))
    middle = what.kind == "step" and what.steps[0] == steps[len(steps) // 2]
    return middle or (what.kind == "frame" and what.frames[0] == chosen[len(chosen) // 2])


pieces = each_problem
work = each_unit(measure)
check = needs_flow
