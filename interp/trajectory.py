"""What a run leaves: the latent, the guided velocity and the clean estimate at every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.clock import Call


def clean_estimate(x_t: Tensor, v: Tensor, sigma: float | Tensor) -> Tensor:
    """``x0hat = x_t - sigma * v`` for flow matching, ``x_t = (1 - sigma) x0 + sigma noise`` (CoS section 3.1, eq. 2)."""
    return x_t - sigma * v


@dataclass
class Run:
    """One generation. Tensors are ``[batch, channel, frame, row, col]`` in the latent space of the model.

    ``x_t[k]`` is the latent before step k, ``v[k]`` the model output after guidance, ``latents`` the final latent;
    ``outputs`` holds every transformer call's own result, from which the run can be replayed.
    """

    sigmas: list[float] = field(default_factory=list)
    timesteps: list[float] = field(default_factory=list)
    x_t: list[Tensor] = field(default_factory=list)
    v: list[Tensor] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    latents: Tensor | None = None
    prepared: Any = None
    prompt_embeds: tuple[Tensor, Tensor | None] | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    decoder: Callable[[Tensor], np.ndarray] | None = None

    @property
    def steps(self) -> int:
        return len(self.x_t)

    @property
    def branches(self) -> tuple[str, ...]:
        """Branches of a step in the order of their calls."""
        return tuple(c.branch for c in self.calls if c.step == 0)

    @property
    def x0hat(self) -> list[Tensor]:
        """Clean estimate of every step."""
        return [clean_estimate(x, v, s) for x, v, s in zip(self.x_t, self.v, self.sigmas, strict=True)]

    def decode(self, step: int | None = None) -> np.ndarray:
        """Pixels uint8 ``[batch, pixel frame, height, width, 3]`` of x0hat at a step, or of the final latent."""
        latents = self.latents if step is None else self.x0hat[step]
        return self.decoder(latents)

    def call(self, step: int, branch: str = "cond") -> Call:
        """The call of a step and branch."""
        return next(c for c in self.calls if c.step == step and c.branch == branch)


@torch.no_grad()
def decode_video(pipe: Any, latents: Tensor) -> Tensor:
    """Decode with the pipeline's VAE as the pipeline itself does; ``[batch, 3, frame, height, width]`` in [-1, 1]."""
    config = pipe.vae.config
    shape = (1, config.z_dim, 1, 1, 1)
    latents = latents.to(pipe.vae.device, pipe.vae.dtype)
    mean = torch.tensor(config.latents_mean).view(shape).to(latents)
    std = 1.0 / torch.tensor(config.latents_std).view(shape).to(latents)
    return pipe.vae.decode(latents / std + mean, return_dict=False)[0]


def decode_latents(pipe: Any, latents: Tensor) -> np.ndarray:
    """As :func:`decode_video`, as uint8 ``[batch, frame, height, width, 3]``."""
    video = decode_video(pipe, latents)
    frames = pipe.video_processor.postprocess_video(video, output_type="np")
    return np.round(np.asarray(frames) * 255).astype(np.uint8)
