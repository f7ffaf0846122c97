"""Does the noise pick the plan? The initial noise is put at chosen places between the run's own answer and another one.

The direction is the difference of the two answers' latents. Controls move as far along a random direction, and along the same one
shifted in space, which is as large and as smooth and is about no answer. Later states are reflected at the ideal observer's
boundary between the two answers: what turns the plan at a step, and how far away it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.facts import LeftOut
from cos_interp.analyses.driver.kept import kept
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit import belief
from cos_interp.analyses.kit.choices import Choices, NoChoice, check_choices, choices, each_choice, runs_of
from cos_interp.analyses.kit.problems import Problem, chosen_steps
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.analyses.seed_choice import CLAIM_AT, WAYS, SeedChoiceConfig, SeedChoiceFacts, label
from cos_interp.interp.batch import chunks
from cos_interp.interp.choosing import along, direction, moved
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.patching import restart
from cos_interp.interp.run.prediction import signal
from cos_interp.interp.trajectory import Run

SHIFT = (1, 2)  # rows and columns by which the direction is shifted for the control
OTHERS = 64  # noises that do not know of the run, for the chance level


@dataclass(frozen=True)
class Plan:
    """One run and what its states are moved between. ``own``, ``target``: candidates; ``ways``: unit vectors by name."""

    run: Run
    among: Choices
    own: int
    target: int
    sigmas: Sequence[float]
    alphas: Sequence[float]
    ways: dict[str, Tensor]

    def position(self, step: int) -> float:
        """Where x_t stands between both answers, in SD of its noise: negative on the own one's side."""
        own, target = (self.among.latents[k] for k in (self.own, self.target))
        return along(self.run.x_t[step], own, target, self.sigmas[step], self.alphas[step])

    def named(self, x_t: Tensor, step: int) -> bool:
        """Whether an ideal observer of a state would name the run's own answer."""
        return belief.pick(x_t, self.among.latents, self.sigmas[step], self.alphas[step]) == self.own


@dataclass(frozen=True)
class Move:
    """A run that goes on from a state ``by`` standard deviations further along one of the ways."""

    way: str
    step: int
    by: float
    about: Row = field(default_factory=dict)

    def state(self, plan: Plan) -> Tensor:
        """The moved state, ``[1, channel, frame, row, col]``."""
        return moved(plan.run.x_t[self.step], plan.ways[self.way], self.by, plan.sigmas[self.step])


def middle(steps: int) -> int:
    """The step at which the claim about reflected states is read."""
    return steps // 2


def steps_of(config: SeedChoiceConfig) -> tuple[int, ...]:
    """The steps of the reflections: what was asked, or spread ones, and the middle one."""
    return tuple(sorted({*chosen_steps(config, 5), middle(config.num_inference_steps)}))


def ways_of(own: Tensor, target: Tensor, seed: int) -> dict[str, Tensor]:
    """Unit vectors ``[channel, frame, row, col]``: from the own answer to the target, random, and the first shifted in space."""
    toward = direction(own, target)
    drawn = torch.randn(toward.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return dict(zip(WAYS, (toward, drawn / drawn.norm(), toward.roll(SHIFT, (-2, -1))), strict=True))


def planned(
    model: HookedVideoPipeline, config: SeedChoiceConfig, problem: Problem, runs: Sequence[Run]
) -> tuple[Plan, int | None, str]:
    """A problem's run with its answer and the other one that is aimed at, the answer as it was read, and the verdict."""
    among, run = choices(model, config, problem, runs), runs[0]
    given, status = among.read(problem, run.latents, run.decode()[0])
    own = among.nearest(run.latents) if given is None else given
    further = 1 + seed_for("other answer", problem.seed) % (len(among.names) - 1)
    target = (own + further) % len(among.names)
    ways = ways_of(among.latents[own], among.latents[target], seed_for("direction", problem.seed, 0))
    return Plan(run, among, own, target, run.sigmas, signal(model.pipe.scheduler, run.sigmas), ways), given, status


def moves(config: SeedChoiceConfig, plan: Plan) -> Iterator[Move]:
    """All moved runs of a problem: the doses with the controls of the claim's, then the reflections with theirs."""
    start = plan.position(0)
    for dose in sorted({*config.doses, CLAIM_AT}):
        for way in plan.ways if dose == CLAIM_AT else ("toward",):
            yield Move(way, 0, dose - start, {"kind": "dose", "dose": dose, "position": start})
    for step in steps_of(config):
        place = plan.position(step)
        about = {"kind": "reflected", "position": place, "named": plan.named(plan.run.x_t[step], step)}
        for way in plan.ways:
            yield Move(way, step, -2 * place, about)


def results(
    model: HookedVideoPipeline, config: SeedChoiceConfig, problem: Problem, plan: Plan
) -> Iterator[tuple[Row, np.ndarray]]:
    """A row a moved run, with its clip: which answer it gives, and the weight of the target in its final latent."""
    asked = list(moves(config, plan))
    for step in sorted({move.step for move in asked}):
        for batch in chunks([move for move in asked if move.step == step], config.batch):
            latents = restart(model, plan.run, step, torch.cat([move.state(plan) for move in batch])).latents
            clips = model.decode(latents)
            for row, move in enumerate(batch):
                given, status = plan.among.read(problem, latents[row : row + 1], clips[row])
                yield {
                    **move.about, "way": move.way, "step": step, "sigma": plan.sigmas[step], "by": abs(move.by),
                    "share": abs(move.by) * plan.sigmas[step] / float(plan.run.x_t[step].norm()),
                    "status": status, "is_target": given == plan.target, "is_own": given == plan.own,
                    "weight": weight(plan, latents[row : row + 1]),
                }, clips[row]  # fmt: skip


def weight(plan: Plan, latents: Tensor) -> float:
    """Share of the target in a final latent, by least squares on the candidates."""
    return float(belief.shares(latents, plan.among.latents)[plan.target])


def noise_row(plan: Plan, seed: int) -> Row:
    """Whether the first state alone names the run's answer, and how often other noises' do."""
    x_t, generator = plan.run.x_t[0], torch.Generator().manual_seed(seed)
    others = torch.randn((OTHERS, *x_t.shape[1:]), generator=generator) * plan.sigmas[0]
    chance = float(np.mean([plan.named(one[None], 0) for one in others]))
    return {
        "kind": "noise", "step": 0, "sigma": plan.sigmas[0], "named": plan.named(x_t, 0), "chance": chance,
        "position": plan.position(0), "weight": weight(plan, plan.run.latents),
    }  # fmt: skip


def measure(model: HookedVideoPipeline, config: SeedChoiceConfig, problem: Problem) -> Unit:
    runs = runs_of(model, config, problem)
    try:
        plan, given, status = planned(model, config, problem, runs)
    except NoChoice as error:
        return Unit([], facts=LeftOut(reason=str(error)))
    made = list(results(model, config, problem, plan))
    about = {**problem.facts, "eligible": given is not None, "candidates": len(plan.among.names)}
    rows = [{**about, "status": status, **noise_row(plan, seed_for("direction", problem.seed, 1))}]
    rows += [{**about, **row} for row, _ in made]
    clips = [plan.run.decode()[0], *(clip for _, clip in made)] if problem.kept(made[0][1].nbytes) else []
    named = [(label(row), place, clip) for place, (row, clip) in enumerate(zip(rows, clips, strict=False))]
    tensors, kept_of = kept([(name, place, clip) for name, place, clip in named if name is not None])
    facts = SeedChoiceFacts(
        sigmas=tuple(plan.sigmas), prompt=problem.call["prompt"], own=plan.among.names[plan.own],
        target=plan.among.names[plan.target], **kept_of,
    )  # fmt: skip
    return Unit(rows, tensors, facts)


pieces = each_choice
work = each_unit(measure)


def check(config: SeedChoiceConfig, model: HookedVideoPipeline) -> None:
    steps_of(config)
    check_choices(config, model)
