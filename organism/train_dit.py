"""Stage 2: the video diffusion transformer, by flow matching on the frozen autoencoder's latents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cos_interp.organism import data, padding, shapes
from cos_interp.organism.graphed import Batch
from cos_interp.organism.loop import Recipe, mixed
from cos_interp.organism.text import PromptTable
from cos_interp.tasks import grid

RECIPE = Recipe(steps=12000, batch=32, lr=1.5e-3, muon_lr=3e-3, warmup=100, decay=0.35, ema=0.999)
NOISES = 2  # noise levels a clip; the recipe's batch counts clips
PROMPT_DROPOUT = 0.2  # guidance needs a good unconditional model
HIGH, HIGH_SHARE = 0.95, 0.07  # noise levels drawn from (HIGH, 1) on top of the logit-normal ones: 10 % in all
GIVEN_WEIGHT = 0.25  # of tokens that the first frame fixes
DRAWN = ("video", "noise", "sigma", "weights")  # in a batch; all else are words


def build(seed: int = 0) -> WanTransformer3DModel:
    """The transformer with random weights; also the untrained twin that serves as null model."""
    torch.manual_seed(seed)
    return WanTransformer3DModel(**shapes.TRANSFORMER)


def draw_sigma(count: int, generator: torch.Generator, shift: float = shapes.SCHEDULER["shift"]) -> torch.Tensor:
    """Logit-normal noise levels in (0, 1), shifted as the scheduler shifts its grid (Esser et al. 2024, eq. 23).

    ``HIGH_SHARE`` of them are uniform above ``HIGH`` instead, where the plan is picked: the logit-normal has 3 % there.
    """
    u = torch.randn(count, generator=generator).sigmoid()
    shifted = shift * u / (1 + (shift - 1) * u)
    chosen, level = torch.rand(2, count, generator=generator)
    return torch.where(chosen < HIGH_SHARE, HIGH + (1 - HIGH) * level, shifted)


def token_weights(first: np.ndarray) -> torch.Tensor:
    """Loss weights ``[batch, 1, frame, row, col]`` from first frames of classes ``[batch, row, col]``, mean 1.

    The first latent frame and the walls are given by the condition and count less. The weight depends on the condition
    alone, so the minimiser is still the conditional mean.
    """
    weight = np.where(first == grid.WALL, GIVEN_WEIGHT, 1.0)[:, None].repeat(grid.LATENT_FRAMES, 1)
    weight[:, 0] = GIVEN_WEIGHT
    return torch.from_numpy(weight / weight.mean()).float()[:, None]


def rows(values: torch.Tensor) -> torch.Tensor:
    """One number a row, for latents."""
    return values.view(-1, 1, 1, 1, 1)


def noisy(x0: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Latents at noise levels, one a row."""
    return (1 - rows(sigma)) * x0 + rows(sigma) * noise


class FlowMatching(ABC):
    """The training loss: predict ``noise - x0`` from ``(1 - sigma) x0 + sigma noise``. What goes into the transformer beside that
    is a matter of its kind: see :class:`CrossFlowMatching` and :mod:`cos_interp.organism.joint`."""

    def __init__(self, vae: AutoencoderKLWan):
        self.vae, self.frames = vae.eval(), grid.LATENT_FRAMES
        view = (1, -1, 1, 1, 1)
        self.mean = torch.tensor(vae.config.latents_mean, device=vae.device).view(view)
        self.std = torch.tensor(vae.config.latents_std, device=vae.device).view(view)

    @torch.no_grad()
    def normalised(self, video: torch.Tensor) -> torch.Tensor:
        """Normalised latents of clips in [-1, 1]."""
        with mixed(video.device):
            latents = self.vae.encode(video).latent_dist.mode().float()
        return (latents - self.mean) / self.std

    @abstractmethod
    def condition(self, video: torch.Tensor) -> torch.Tensor:
        """Channels that tell the transformer the first frame."""

    @abstractmethod
    def text(self, prompts: list[str], rng: np.random.Generator, video: torch.Tensor) -> Batch:
        """Keywords that tell the transformer the prompts, of which some are dropped: ``NOISES`` for each clip."""

    def dropped(self, prompts: list[str], rng: np.random.Generator) -> list[str]:
        """The prompts, some of them empty."""
        return ["" if rng.random() < PROMPT_DROPOUT else prompt for prompt in prompts]

    def batch(self, indices: range) -> Batch:
        """``video [clip, 3, frame, height, width]``; of ``NOISES`` a clip: ``noise``, ``sigma``, ``weights``, the words."""
        items = [data.item(i) for i in indices]
        cells = np.stack([i.cells for i in items])
        generator, rng = torch.Generator().manual_seed(indices.start), np.random.default_rng(indices.start)
        video, count = data.to_tensor(cells), NOISES * len(items)
        latents = (count, self.vae.config.z_dim, self.frames, *cells.shape[2:])
        noise, sigma = torch.randn(latents, generator=generator), draw_sigma(count, generator)
        weights = token_weights(cells[:, 0]).repeat(NOISES, 1, 1, 1, 1)
        words = self.text([i.prompt for i in items] * NOISES, rng, video)
        return {"video": video, "noise": noise, "sigma": sigma, "weights": weights, **words}

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Mean squared error of the velocity, weighted by token."""
        x0, condition = self.clean(batch)
        words = {name: value for name, value in batch.items() if name not in DRAWN}
        seen = torch.cat([noisy(x0, batch["noise"], batch["sigma"]), condition], 1)
        v = self.velocity(model, words, hidden_states=seen, timestep=batch["sigma"] * 1000, return_dict=False)
        return ((v - (batch["noise"] - x0)).pow(2) * batch["weights"]).mean()

    def clean(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents and condition, ``NOISES`` of each clip."""
        x0, condition = (t.repeat(NOISES, 1, 1, 1, 1) for t in (self.normalised(batch["video"]), self.condition(batch["video"])))
        return x0, condition

    def velocity(self, model: nn.Module, words: Batch, **call: Any) -> torch.Tensor:
        """What the transformer answers."""
        device = self.vae.device
        # the fused CPU kernel's backward pass is slower than plain matrix products at this size
        backend = [SDPBackend.MATH] if device.type == "cpu" else [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
        with sdpa_kernel(backend), mixed(device):
            return model(**call, **words)[0].float()


class CrossFlowMatching(FlowMatching):
    """For Wan's transformer: the condition is a mask and the latents of the first frame before grey; padding is a bias."""

    def __init__(self, vae: AutoencoderKLWan, prompts: PromptTable, processor: padding.BiasedProcessor):
        super().__init__(vae)
        self.prompts, self.processor = prompts, processor

    def condition(self, video: torch.Tensor) -> torch.Tensor:
        first = self.normalised(data.first_frame_only(video))
        mask = torch.zeros_like(first[:, : self.vae.config.scale_factor_temporal])
        mask[:, :, 0] = 1
        return torch.cat([mask, first], 1)

    def text(self, prompts: list[str], rng: np.random.Generator, video: torch.Tensor) -> Batch:
        kept = self.dropped(prompts, rng)
        stacked, bias = padding.pad([self.prompts.embed(p) for p in kept], rng.choice(padding.LENGTHS, len(kept)).tolist())
        return {"encoder_hidden_states": stacked, "bias": bias}

    def velocity(self, model: nn.Module, words: Batch, **call: Any) -> torch.Tensor:
        self.processor.bias = words["bias"]
        return super().velocity(model, {"encoder_hidden_states": words["encoder_hidden_states"]}, **call)
