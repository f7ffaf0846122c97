"""What the tiny pipelines have in common: the record of one, keywords of calls, random weights, pictures of noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch

Keywords = dict[str, Any]
PROMPT, NEGATIVE = "move the red circle above the box", "a blue square"

# lengths of prompts in tokens: for a T5, for a chat model that is told what to do, for a pipeline that asks for this one
SHORT, CHAT, LONG = ({"max_sequence_length": length} for length in (12, 40, 512))

# keywords with classifier-free guidance, and without
PLAIN: tuple[Keywords, Keywords] = ({"guidance_scale": 3.0, "negative_prompt": NEGATIVE}, {"guidance_scale": 1.0})
BY_GUIDER: tuple[Keywords, Keywords] = ({"negative_prompt": NEGATIVE}, {})


def text_only(size: int, frames: int) -> Keywords:
    """Nothing is given besides the text."""
    return {}


@dataclass(frozen=True)
class Tiny:
    """How to build one pipeline, and its keywords."""

    build: Callable[[], Any]
    keywords: Keywords = field(default_factory=dict)
    given: Callable[[int, int], Keywords] = text_only  # (size, frames) to pictures, videos and masks
    guidance: tuple[Keywords, Keywords] = PLAIN
    embeddings: Callable[[bool], Keywords] | None = None  # (guided) to prompt embeddings, where no tiny text encoder exists
    frames: str | None = "num_frames"  # the keyword; None where what is given has that many
    sized: bool = True  # takes height and width


def new(name: str, /, **config: Any) -> Any:
    """A model, scheduler or pipeline of diffusers by the name of its class; models have random weights."""
    return getattr(import_module("diffusers"), name)(**config)


def image(size: int, seed: int = 0) -> Any:
    """A picture of noise."""
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8))


def images(size: int, frames: int) -> list[Any]:
    return [image(size, seed) for seed in range(frames)]


def video_tensor(size: int, frames: int) -> torch.Tensor:
    """``[1, 3, frame, height, width]`` in [0, 1]."""
    return torch.rand(1, 3, frames, size, size, generator=torch.Generator().manual_seed(0))


def picture(size: int, frames: int) -> Keywords:
    return {"image": image(size)}


def video(size: int, frames: int) -> Keywords:
    return {"video": images(size, frames)}
