"""From latents ``[batch, channel, frame, row, col]`` to what the VAE decodes: one function per way of scaling.

Each returns pixels ``[batch, 3, pixel frame, height, width]`` in [-1, 1], computed as the pipelines themselves do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers.video_processor import VideoProcessor
from torch import Tensor

from cos_interp.interp.errors import InterpError
from cos_interp.interp.placing import TOGETHER
from cos_interp.interp.run.finite import check_finite

MOST = 16
PIXELS = 2**22  # of all frames, at the full size of which an autoencoder computes some hundred channels


def _statistics(pipe: Any, latents: Tensor) -> tuple[Tensor, Tensor]:
    config = pipe.vae.config
    if getattr(config, "latents_mean", None) is None or getattr(config, "latents_std", None) is None:
        raise InterpError(
            f"the configuration of {type(pipe.vae).__name__} has no latents_mean and latents_std: give the adapter a "
            "method decode(self, pipe, latents) that returns by_scaling_factor(pipe, latents), or pixels of your own"
        )
    shape = (1, -1, 1, 1, 1)
    mean = torch.as_tensor(config.latents_mean).view(shape).to(latents)
    std = 1.0 / torch.as_tensor(config.latents_std).view(shape).to(latents)
    return mean, std


def by_statistics(pipe: Any, latents: Tensor) -> Tensor:
    """``latents * std + mean`` with the VAE's per-channel statistics (the Wan VAE)."""
    return pipe.vae.decode(destandardized(pipe, latents.to(pipe.vae.dtype)), return_dict=False)[0]


def destandardized(pipe: Any, latents: Tensor) -> Tensor:
    """Latents in the scale of the autoencoder."""
    mean, std = _statistics(pipe, latents)
    return latents / std + mean


def by_scaling_factor(pipe: Any, latents: Tensor) -> Tensor:
    """``latents / scaling_factor``."""
    if getattr(pipe.vae.config, "scaling_factor", None) is None:
        raise InterpError(
            f"the configuration of {type(pipe.vae).__name__} has no scaling_factor: give the adapter a method "
            "decode(self, pipe, latents) that returns pixels"
        )
    latents = latents.to(pipe.vae.dtype) / pipe.vae.config.scaling_factor
    return pipe.vae.decode(latents, return_dict=False)[0]


def at_a_time(pipe: Any, latents: Tensor) -> int:
    """How many of these videos are decoded together: as the pipeline was told (``--decode-steps``), else as many as have PIXELS,
    from 1 to MOST."""
    if (told := getattr(pipe, TOGETHER, None)) is not None:
        return int(told)
    time, space = (getattr(pipe, f"vae_scale_factor_{axis}", None) or 1 for axis in ("temporal", "spatial"))
    frames, rows, cols = latents.shape[2:]
    return max(1, min(MOST, PIXELS // (frames * time * rows * space * cols * space)))


def decoded(pipe: Any, adapter: Any, latents: Tensor) -> Tensor:
    """Pixels ``[batch, 3, pixel frame, height, width]`` as the adapter decodes them. InterpError for latents of another model."""
    if pipe.vae is None:
        raise InterpError("this pipeline has no autoencoder (its vae is None): load one to decode latents")
    check_channels(pipe, latents)
    try:
        return adapter.decode(pipe, latents.to(getattr(pipe, "_execution_device", latents.device)))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        given = f"latents [batch, channel, frame, row, col] of {list(latents.shape)} were given"
        raise InterpError(f"{given}, and {type(pipe.vae).__name__} could not decode them: {error}") from error


def check_channels(pipe: Any, latents: Tensor) -> None:
    """InterpError for latents ``[batch, channel, ...]`` of other channels than the autoencoder's, as far as it says."""
    config = getattr(pipe.vae, "config", None)
    channels = getattr(config, "z_dim", None) or getattr(config, "latent_channels", None)
    if channels is not None and latents.shape[1] != channels:  # one channel would be taken for all of them
        raise InterpError(
            f"latents [batch, channel, frame, row, col] of {list(latents.shape)} were given, and {type(pipe.vae).__name__} has "
            f"{channels} channels"
        )


def postprocessed(pipe: Any, pixels: Tensor, output_type: str) -> Any:
    """Frames as the pipeline returns them with this ``output_type``. NotFinite for pixels that are NaN or infinite."""
    check_finite(pixels, "what the autoencoder decoded", [pipe.vae])
    processor = getattr(pipe, "video_processor", None) or VideoProcessor()
    return processor.postprocess_video(pixels, output_type=output_type)


def to_uint8(frames: Any) -> np.ndarray:
    """uint8 ``[batch, pixel frame, height, width, 3]`` of a pipeline's frames of type ``"np"``."""
    return np.round(np.asarray(frames) * 255).astype(np.uint8)
