"""Corruption and recovery (CoS section 4): a wrong answer's latent is put in at step k; is the right one back, and by when?

The injected state is that of a run from the same noise, so that only its content is foreign and a mixture of the two is a
state of the same noise level. At the first step, where x_t is all noise, nothing is injected then: an exact control.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.kept import kept
from cos_interp.analyses.driver.statistics import distance, projection
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit import perturb
from cos_interp.analyses.kit.problems import Problem, chosen_steps, generate, judge, needs_flow, problems, spread
from cos_interp.analyses.recovery import AT, RecoveryConfig, RecoveryFacts, label
from cos_interp.interp.batch import chunks
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patching import restart
from cos_interp.interp.trajectory import Run
from cos_interp.tasks import get_task, suite
from cos_interp.tasks.scorer import has_verdict

Injected = tuple[str, float]  # a donor and a dose
Piece = tuple[Problem, Problem | None]  # a problem, and the other item whose latents are injected


@dataclass(frozen=True)
class Donor:
    """Where an injected latent comes from. ``problem`` and ``run`` are None for noise."""

    name: str
    problem: Problem | None = None
    run: Run | None = None


@dataclass(frozen=True)
class Injection:
    """One injected run: ``dose`` 1 replaces all of x_t."""

    donor: Donor
    dose: float
    step: int


def mix(own: Tensor, other: Tensor, dose: float) -> Tensor:
    """``(1 - dose) own + dose other``; two states of one noise keep it whole."""
    return other if dose == 1 else (1 - dose) * own + dose * other


def injected(injection: Injection, run: Run, seed: int) -> Tensor:
    """``x_t [1, channel, frame, row, col]`` after the injection."""
    step, donor = injection.step, injection.donor
    x_t = run.x_t[step]
    if donor.run is not None:
        return mix(x_t, donor.run.x_t[step], injection.dose)
    noise = perturb.noise_like(x_t, seed, step)
    return perturb.erase(x_t, run.x0hat[step], run.sigmas[step], noise, injection.dose)


def whose(problem: Problem, donor: Problem | None, frames: np.ndarray) -> str | None:
    """Whose answer a video gives: ``target``, ``donor``, ``other`` (a third, or a broken one) or ``undecided``.

    Each item's own verifier is asked, with its own first frame. None where none gives a verdict.
    """
    verdict = judge(problem, frames)
    if verdict is None or not has_verdict(verdict):
        return None
    if verdict.solved:
        return "target"
    if donor is not None and (of_donor := judge(donor, frames)) is not None and of_donor.solved:
        return "donor"
    return "undecided" if verdict.status == "undecided" else "other"


def other_prompt(problem: Problem) -> Problem | None:
    """The same scene with another prompt whose right answers are all wrong here; None where there is none."""
    if problem.item is None:
        return None
    item = get_task(problem.task).counterfactual(problem.item, "prompt", np.random.default_rng(problem.seed))
    if item is None or set(item.answers) & set(problem.item.answers):
        return None
    return Problem(f"{problem.name}-prompt", {**problem.call, "prompt": item.prompt}, problem.seed, problem.index, item)


def donors(model: HookedVideoPipeline, config: RecoveryConfig, problem: Problem, other: Problem | None) -> list[Donor]:
    """What is injected into this problem's run; each donor runs from this problem's noise."""
    return [
        Donor(name) if giver is None else Donor(name, giver, generate(model, config, giver, problem.seed))
        for name, giver in givers(config, problem, other)
    ]


def givers(config: RecoveryConfig, problem: Problem, other: Problem | None) -> list[tuple[str, Problem | None]]:
    """The donors that there are, by name, each with the problem that it runs; None for noise."""
    asked = [(name, other if name == "other" else other_prompt(problem) if name == "prompt" else None) for name in config.donors]
    return [(name, giver) for name, giver in asked if giver is not None or name == "noise"]


def steps_of(config: RecoveryConfig) -> tuple[int, ...]:
    """The injection steps: what was asked, or the one that the paper's claim is about, and late ones; not the last
    of the run, after which nothing could correct."""
    if config.steps is not None:
        return chosen_steps(config)
    steps = config.num_inference_steps
    return tuple(sorted({min(round(share * steps), steps - 2) for share in AT}))


def read(problem: Problem, donor: Donor, base: Run, estimate: Tensor, clip: np.ndarray | None) -> Row:
    """What one clean estimate (or final latent) ``[1, ...]`` of an injected run shows.

    ``effect``: 1 as the undisturbed run's final latent, 0 as the donor's (projection on their difference).
    """
    effect = None if donor.run is None else projection(estimate, donor.run.latents, base.latents)
    said = whose(problem, donor.problem, clip) if clip is not None else None
    return {"whose": said, "effect": effect, "distance": distance(estimate, base.latents)}


def inject(
    model: HookedVideoPipeline, problem: Problem, run: Run, batch: Sequence[Injection], followed: dict[Injected, int]
) -> Iterator[tuple[Row, np.ndarray | None]]:
    """Rows of injections at one step: what the clean estimate there and the final video show, and every estimate between of
    those whose answer was read there (of all without a verifier); with the clips of the final videos, and of some estimates of
    the first injection of each donor whose answer was read. ``followed``: the step of that."""
    step = batch[0].step
    seen = {step + k for k in spread(run.steps - step)}
    later = restart(model, run, step, torch.cat([injected(i, run, problem.seed) for i in batch]))
    taken: list[int] = []
    for j in range(step, run.steps + 1):
        last = j == run.steps
        asked = list(range(len(batch))) if last or j == step else taken
        if not asked:
            continue
        estimates = (later.latents if last else later.x0hat[j])[asked]
        clips = model.decode(estimates) if problem.judged else [None] * len(asked)
        for k, estimate, clip in zip(asked, estimates.split(1), clips, strict=True):
            donor = batch[k].donor
            at = {"kind": "injected", "donor": donor.name, "dose": batch[k].dose, "injected": step, "step": j}
            found = read(problem, donor, run, estimate, clip)
            if j == step and found["whose"] in ("donor", None):
                taken.append(k)
            if j == step and found["whose"] == "donor":
                followed.setdefault((donor.name, batch[k].dose), step)
            follows = j in seen and followed.get((donor.name, batch[k].dose)) == step
            yield {**at, "sigma": 0.0 if last else run.sigmas[j], **found}, clip if last or follows else None


def baselines(
    model: HookedVideoPipeline, problem: Problem, run: Run, found: list[Donor]
) -> Iterator[tuple[Row, np.ndarray | None]]:
    """The undisturbed run's video, and each donor's own judged for this problem: what no correction would leave."""
    at = {"dose": None, "injected": None, "step": run.steps, "sigma": 0.0}
    clip = model.decode(run.latents)[0] if problem.judged else None
    said = None if clip is None else whose(problem, None, clip)
    yield {"kind": "undisturbed", "donor": None, **at, "whose": said, "effect": None, "distance": 0.0}, clip
    for donor in found:
        if donor.run is not None:
            clip = model.decode(donor.run.latents)[0] if problem.judged else None
            row = read(problem, donor, run, donor.run.latents, clip)
            yield {"kind": "never corrected", "donor": donor.name, **at, **row}, clip


def counts(donor: Donor, rows: Sequence[Row]) -> bool:
    """Whether there is an answer to lose and one to put in: the undisturbed run ends right, and the donor's for the donor. True
    without a verifier."""
    final = next(row["whose"] for row in rows if row["kind"] == "undisturbed")
    own = [row["whose"] for row in rows if row["kind"] == "never corrected" and row["donor"] == donor.name]
    return final in (None, "target") and set(own) <= {None, "donor"}


def measure(model: HookedVideoPipeline, config: RecoveryConfig, piece: Piece) -> Unit:
    """Rows of the baselines and of the injections that can count; the first items of a task keep clips."""
    problem, other = piece
    run = generate(model, config, problem)
    found = donors(model, config, problem, other)
    made, followed = list(_held(problem, baselines(model, problem, run, found))), dict[Injected, int]()
    sound = [donor for donor in found if counts(donor, [row for row, _ in made])]
    for step in steps_of(config) if sound else ():
        asked = [Injection(donor, dose, step) for donor in sound for dose in config.doses]
        for batch in chunks(asked, config.batch):
            made += _held(problem, inject(model, problem, run, batch, followed))
    shown = [(label(row), k, clip) for k, (row, clip) in enumerate(made) if clip is not None]
    tensors, about = kept([one for one in shown if made[one[1]][0]["dose"] in (None, config.doses[0])])
    facts = RecoveryFacts(
        sigmas=tuple(run.sigmas), prompt=problem.call["prompt"], scheduler=type(model.pipe.scheduler).__name__,
        donor_prompts={d.name: d.problem.call["prompt"] for d in found if d.problem is not None}, **about,
    )  # fmt: skip
    return Unit([{**problem.facts, **row} for row, _ in made], tensors, facts)


def _held(problem: Problem, found: Iterator[tuple[Row, np.ndarray | None]]) -> Iterator[tuple[Row, np.ndarray | None]]:
    """The rows without the clips of a problem that keeps none."""
    for row, clip in found:
        yield row, clip if clip is not None and problem.kept(clip.nbytes) else None


def pieces(config: RecoveryConfig) -> list[tuple[Piece, list[str]]]:
    """Each problem with the next one of its task that has no right answer in common with it."""
    return [((problem, _other(problem, _beside(problem, config))), [problem.name]) for problem in problems(config)]


def _beside(problem: Problem, config: RecoveryConfig) -> list[Problem]:
    """All problems of its task, asked for or not, so that a donor does not depend on their number; or all of the user's own."""
    if problem.item is None:
        return problems(config)
    return problems(config.model_copy(update={"tasks": (problem.task,), "items": len(suite.task_items(problem.task))}))


def _other(problem: Problem, found: list[Problem]) -> Problem | None:
    at = found.index(problem)
    for other in [*found[at + 1 :], *found[:at]]:
        shared = problem.item is not None and other.item is not None and set(problem.item.answers) & set(other.item.answers)
        if other.task == problem.task and not shared:
            return other
    return None


work = each_unit(measure, lambda piece: piece[0].name)
check = needs_flow
