"""Surprise: how badly a model denoises a clip, at the same noise for the possible and the impossible one.

The loss is that of flow matching (Lipman et al. 2210.02747), ``mean((v(x) - (noise - x0))^2)`` at ``x = (1 - sigma) x0 + sigma
noise``. Noise, levels, prompt and, where the clips begin alike, the picture are equal (equal dose), so that what differs is the
clip. Two baselines know no model: what the autoencoder alone gets wrong of each clip, and the loss of the best denoiser that
knows how large latents are and nothing else, from the same noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cos_interp.analyses.driver.experiment import Unit, each_unit
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.problems import fits_tasks, spread
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.analyses.plausibility import PairFacts, PlausibilityConfig
from cos_interp.analyses.plausibility.pairs import ClipPair, check_rates, clip_pairs
from cos_interp.interp.denoising import Denoiser
from cos_interp.interp.encoding import encode
from cos_interp.interp.errors import InterpError
from cos_interp.interp.inverting import told, with_given
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.prediction import is_flow, signal

LEVELS = 6
SIDES = ("possible", "impossible")


def surprise(velocity: Tensor, clean: Tensor, noise: Tensor) -> float:
    """The loss of a predicted velocity against that of a clip, ``noise - x0``, mean over the latent.

    >>> surprise(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0]))
    0.0
    """
    return float((velocity - (noise - clean)).square().mean())


def best_guess(x_t: Tensor, sigma: float, alpha: float, power: float) -> Tensor:
    """The clean estimate of who knows the mean square of latents, ``power``, and nothing else: Wiener's.

    >>> float(best_guess(torch.tensor(2.0), 0.5, 0.5, 1.0))
    2.0
    """
    return x_t * alpha * power / (alpha**2 * power + sigma**2)


def measure(model: HookedVideoPipeline, config: PlausibilityConfig, pair: ClipPair) -> Unit:
    clips = {"possible": pair.possible(model), "impossible": pair.impossible(model)}
    generation = {"num_inference_steps": config.num_inference_steps, "guidance_scale": config.guidance_scale}
    call = {"prompt": pair.prompt, **generation}
    denoisers = {side: Denoiser(model, **told(model, clip, call)) for side, clip in clips.items()}
    if np.array_equal(clips["possible"][0], clips["impossible"][0]):
        denoisers["impossible"] = denoisers["possible"]
    clean = {side: with_given(denoisers[side], encode(model, clip[None])) for side, clip in clips.items()}
    steps = chosen(config)
    about = {"problem": pair.name, "task": pair.task}
    rows: list[Row] = [{**about, "kind": "autoencoder", **lost(model, clips)}]
    for number in range(config.noises):
        generator = torch.Generator().manual_seed(seed_for("surprise", pair.seed, number))
        noise = torch.randn(clean["possible"].shape, generator=generator).to(clean["possible"])
        for step in steps:
            rows += [{**about, "noise": number, "step": step, **row} for row in at_noise(model, denoisers, clean, noise, step)]
    denoiser = denoisers["possible"]
    facts = PairFacts(sigmas=denoiser.sigmas[:-1], prompt=pair.prompt, broken=pair.broken, steps=steps, axes=AXES)
    tensors = {side: torch.from_numpy(clip) for side, clip in clips.items()}
    return Unit([{**row, "more": row["impossible"] - row["possible"]} for row in rows], tensors, facts)


AXES = dict.fromkeys(SIDES, ("pixel frame", "height", "width", "rgb"))


def at_noise(
    model: HookedVideoPipeline, denoisers: dict[str, Denoiser], clean: dict[str, Tensor], noise: Tensor, step: int
) -> list[Row]:
    """The losses of both clips at one step, of the model and of the best guess without one."""
    sigmas = denoisers["possible"].sigmas
    sigma, alpha = sigmas[step], signal(model.pipe.scheduler, sigmas)[step]
    power = float(torch.cat([clean[side] for side in SIDES]).square().mean())
    own: dict[str, Any] = {"kind": "model", "sigma": sigma}
    guess: dict[str, Any] = {"kind": "noise", "sigma": sigma}
    for side in SIDES:
        x_t = alpha * clean[side] + sigma * noise
        own[side] = surprise(denoisers[side].velocity(step, x_t), clean[side], noise)
        guess[side] = surprise((x_t - best_guess(x_t, sigma, alpha, power)) / sigma, clean[side], noise)
    return [own, guess]


def lost(model: HookedVideoPipeline, clips: dict[str, np.ndarray]) -> dict[str, float]:
    """Mean square of what the autoencoder alone gets wrong of each clip, in shares of white."""
    return {
        side: float(np.square((model.decode(encode(model, clip[None]))[0].astype(float) - clip) / 255).mean())
        for side, clip in clips.items()
    }


def chosen(config: PlausibilityConfig) -> tuple[int, ...]:
    """The steps at whose noise is measured. InterpError for one that the run does not have."""
    steps = spread(config.num_inference_steps, LEVELS) if config.steps is None else config.steps
    if beyond := [step for step in steps if not 0 <= step < config.num_inference_steps]:
        raise InterpError(f"step {beyond[0]} was asked for; the runs have steps 0 to {config.num_inference_steps - 1}")
    return steps


def pieces(config: PlausibilityConfig) -> list[tuple[ClipPair, list[str]]]:
    return [(pair, [pair.name]) for pair in clip_pairs(config)]


def check(config: PlausibilityConfig, model: HookedVideoPipeline) -> None:
    """InterpError for a model that is no flow, for steps that there are not, and for clips that cannot be read."""
    chosen(config)
    if not is_flow(model.pipe.scheduler):
        name = type(model.pipe.scheduler).__name__
        raise InterpError(f"surprise is the loss of flow matching, and {name} samples no flow: take a flow-matching model")
    if config.clips is None:
        fits_tasks(model, "--clips FOLDER, or another model")
        return
    for pair in clip_pairs(config):
        if pair.possible(model).shape != pair.impossible(model).shape:
            raise InterpError(f"--clips {config.clips}: the two clips of {pair.name} differ in size: make them alike")
    check_rates(config)


work = each_unit(measure)
