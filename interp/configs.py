"""Whether the configurations of a pipeline's parts are whole, and say something: values that load and mean something else."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

FILES = ("config.json", "scheduler_config.json")
STATISTICS = ("latents_mean", "latents_std")  # of an autoencoder, one number a latent channel
WIDTHS = ("z_dim", "latent_channels")


def broken_configs(pipe: Any, folder: Path) -> Iterator[str]:
    """What is wrong with the configurations of a pipeline's parts, in words."""
    for name, part in pipe.components.items():
        if not hasattr(part, "config") or not type(part).__module__.startswith("diffusers."):
            continue
        for path in (folder / name / file for file in FILES):
            if path.is_file() and not json.loads(path.read_text()).get("_class_name"):
                yield f"{path} does not say of which class it is (_class_name), so that its values are defaults: it is damaged"
        if "scheduler" in name and (lost := [key for key, value in part.config.items() if _no_number(value)]):
            yield f"the configuration of its {name} has {lost[0]} {part.config[lost[0]]}: it is damaged"
        if isinstance(part, nn.Module):
            yield from broken_statistics(part, f"its {name}")


def _no_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def broken_statistics(autoencoder: nn.Module, what: str) -> Iterator[str]:
    """Latent statistics that no data has: of another number of channels, or standard deviations that are not above 0."""
    config: Any = autoencoder.config
    channels = next((config[key] for key in WIDTHS if isinstance(config.get(key), int)), None)
    for key in STATISTICS:
        values = config.get(key) or getattr(autoencoder, key, None)  # some keep them as buffers
        if values is None:
            continue
        numbers = list(values) if isinstance(values, list | tuple) else torch.as_tensor(values).flatten().tolist()
        if channels is not None and len(numbers) % channels:  # some have them by frame, too
            yield f"{what} has {len(numbers)} {key} for {channels} latent channels: its configuration is damaged"
        elif not all(isinstance(v, int | float) and math.isfinite(v) and (key == "latents_mean" or v > 0) for v in numbers):
            yield f"{what} has {key} {numbers[:4]}...: its configuration is damaged"
    scale = config.get("scaling_factor")
    if scale is not None and not (isinstance(scale, int | float) and 0 < scale < math.inf):
        yield f"{what} has scaling_factor {scale}: its configuration is damaged"
