"""Does the mean of the weights of several checkpoints solve more than the last one, item by item?

Every item is generated from one noise by the last checkpoint, by the average of all, and by each other one. Autoencoder and text
encoder are always the last one's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from cos_interp.analyses.averaging import AVERAGE, LAST, WEIGHTS, AveragingConfig, AveragingFacts
from cos_interp.analyses.averaging.merged import Weights, apart, averaged, weights_of, with_weights
from cos_interp.analyses.driver.experiment import Unit, from_others
from cos_interp.analyses.driver.facts import PIXELS
from cos_interp.analyses.driver.statistics import distance
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.kit.other_models import beside, check_build, check_content, content, kept_apart
from cos_interp.analyses.kit.problems import Problem, arguments, fits, judge_latents, problems, verdict_columns
from cos_interp.interp.errors import InterpError
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.tasks.scorer import solved_of


@dataclass(frozen=True)
class Piece:
    """A problem with the weights of one variant; or, without a problem, the weights themselves."""

    variant: str
    problem: Problem | None = None

    @property
    def name(self) -> str:
        return WEIGHTS if self.problem is None else f"{self.variant.replace(' ', '-')}-{self.problem.name}"


def pieces(config: AveragingConfig) -> list[tuple[Piece, list[str]]]:
    found = problems(config)
    made = [Piece(WEIGHTS), *(Piece(variant, problem) for variant in config.variants for problem in found)]
    return [(piece, [piece.name]) for piece in made]


def needs(config: AveragingConfig, piece: Piece) -> Sequence[str]:
    """What the last one made of a problem, from which the others are so far away."""
    return [] if piece.problem is None or piece.variant == LAST else [Piece(LAST, piece.problem).name]


# --- checkpoints -------------------------------------------------------------------------------------------------------


def checkpoint(model: HookedVideoPipeline, config: AveragingConfig, place: int) -> HookedVideoPipeline:
    """One of the further checkpoints, as the last one is loaded."""
    return beside(model, config, config.checkpoints[place], replace(config.placing(), lora=()))


def check(config: AveragingConfig, model: HookedVideoPipeline) -> None:
    """InterpError where no checkpoints were named, or one is of another build, of other weights, or has other content than was
    asked."""
    fits(config, model)
    if not config.checkpoints:
        raise InterpError("averaging takes several checkpoints: give --checkpoints EARLIER,EARLIER beside --model LAST")
    digests = config.checkpoint_digests or (None,) * len(config.checkpoints)
    if len(digests) != len(config.checkpoints):
        raise InterpError(f"{len(digests)} digests for {len(config.checkpoints)} checkpoints: give one each, or none")
    for place, digest in enumerate(digests):
        other = checkpoint(model, config, place)
        check_build(model, other)
        if why := kept_apart(model, other):
            raise InterpError(f"the weights of {model.name} and {other.name} have no average: {why}")
        check_content(other, digest, "--checkpoint-digests")


def settle(config: AveragingConfig, model: HookedVideoPipeline, held: Mapping[str, Any]) -> AveragingConfig:
    """With the contents of the checkpoints, so that a run is continued with the same ones."""
    found = tuple(content(checkpoint(model, config, place)) for place in range(len(config.checkpoints)))
    return config.model_copy(update={"checkpoint_digests": found})


@lru_cache(maxsize=1)  # pieces of one variant come together
def weights_for(model: HookedVideoPipeline, config: AveragingConfig, variant: str) -> Weights:
    """The weights of a variant that is not the last one."""
    if variant != AVERAGE:
        return weights_of(checkpoint(model, config, int(variant.split()[1]) - 1))
    count = len(config.checkpoints)
    return averaged(weights_of(model), (weights_of(checkpoint(model, config, n)) for n in range(count)), count)


# --- measuring ---------------------------------------------------------------------------------------------------------


def _made(model: HookedVideoPipeline, config: AveragingConfig, store: RunStore, piece: Piece) -> Unit:
    if piece.problem is None:
        others = config.variants[1:]
        deltas = [apart(weights_of(model), weights_for(model, config, variant)) for variant in others]
        return Unit([{"kind": WEIGHTS, "variant": v, "delta": delta} for v, delta in zip(others, deltas, strict=True)])
    problem, last = piece.problem, piece.variant == LAST
    call = arguments(model, config, problem)
    with nullcontext() if last else with_weights(model, weights_for(model, config, piece.variant)):
        run = model.run(**call)
    own = run.latents if last else store.tensors(Piece(LAST, problem).name)["latents"]
    verdict = judge_latents(model, problem, run.latents)
    solved = solved_of(verdict)
    about: Row = {**problem.facts, "kind": "run", "variant": piece.variant, "moved": distance(run.latents, own)}
    tensors = {"latents": run.latents} if last else {}
    if problem.first:
        tensors["video"] = torch.from_numpy(run.decode()[0])
    axes = {"latents": ("batch", "channel", "frame", "row", "col"), "video": PIXELS}
    facts = AveragingFacts(sigmas=tuple(run.sigmas), prompt=call["prompt"], variant=piece.variant,
                           axes={name: axes[name] for name in tensors})  # fmt: skip
    return Unit([about | {"solved": solved} | verdict_columns(verdict)], tensors, facts)


work = from_others(_made)
