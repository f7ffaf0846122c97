"""Tiny random pipelines of every supported family, built offline in milliseconds: for tests, here and of your own.

from interp import tiny
model = HookedVideoPipeline.from_pipeline(tiny.build("cogvideox"))
run = model.run(seed=0, **tiny.call("cogvideox"))
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from interp.errors import InterpError

PROMPT, NEGATIVE = "move the red circle above the box", "a blue square"


@dataclass(frozen=True)
class Tiny:
    """How to build one pipeline, and its keywords: ``given`` are images and videos, ``guided`` those that turn guidance on."""

    module: str
    function: str
    mode: str  # text, image or video
    keywords: dict[str, Any] = field(default_factory=dict)
    guidance: dict[str, Any] = field(default_factory=lambda: {"guidance_scale": 3.0, "negative_prompt": NEGATIVE})
    unguided: dict[str, Any] = field(default_factory=lambda: {"guidance_scale": 1.0})
    frames: str = "num_frames"


_WAN = {"max_sequence_length": 12}
_SMALL = {"max_sequence_length": 12}
_TRUE = {"guidance_scale": 2.0, "true_cfg_scale": 3.0, "negative_prompt": NEGATIVE}

TINY: dict[str, Tiny] = {
    "wan2.1": Tiny("wan", "wan21", "text", _WAN),
    "wan2.1-i2v": Tiny("wan", "wan21_image", "image", _WAN | {"max_sequence_length": 512}),
    "wan2.1-v2v": Tiny("wan", "wan_video", "video", _WAN | {"strength": 0.8}),
    "wan2.2": Tiny("wan", "wan22", "text", _WAN),
    "wan2.2-i2v": Tiny("wan", "wan22_image", "image", _WAN),
    "wan2.2-ti2v-5b": Tiny("wan", "ti2v_5b", "image", _WAN),
    "wan-vace": Tiny("wan", "vace", "text", _WAN),
    "wan-animate": Tiny("wan", "animate", "animate", _WAN | {"max_sequence_length": 512}),
    "skyreels-v2": Tiny("wan", "skyreels", "text", _WAN),
    "skyreels-v2-i2v": Tiny("wan", "skyreels_image", "image", _WAN | {"max_sequence_length": 512}),
    "skyreels-v2-df": Tiny("wan", "skyreels_forcing", "text", _WAN),
    "chronoedit": Tiny("wan", "chronoedit", "image", _WAN | {"max_sequence_length": 512}),
    "ltx": Tiny("cross", "ltx", "text", _SMALL),
    "ltx-i2v": Tiny("cross", "ltx_image", "image", _SMALL),
    "allegro": Tiny("cross", "allegro", "text", _SMALL),
    "latte": Tiny("cross", "latte", "text", {"video_length": 3}, frames="video_length"),
    "cosmos1": Tiny("cross", "cosmos1", "text", _SMALL),
    "cosmos2-v2w": Tiny("cross", "cosmos2_image", "image", _SMALL),
    "sana-video": Tiny("cross", "sana", "text", _SMALL | {"use_resolution_binning": False, "complex_human_instruction": []}, frames="frames"),
    "sana-video-i2v": Tiny("cross", "sana_image", "image", _SMALL | {"use_resolution_binning": False, "complex_human_instruction": []}, frames="frames"),
    "cogvideox": Tiny("joint", "cogvideox", "text", _SMALL),
    "cogvideox-5b": Tiny("joint", "cogvideox_5b", "text", _SMALL),
    "cogvideox-i2v": Tiny("joint", "cogvideox_image", "image", _SMALL),
    "cogvideox-v2v": Tiny("joint", "cogvideox_video", "video", _SMALL | {"strength": 0.8}),
    "mochi": Tiny("joint", "mochi", "text", _SMALL),
    "hunyuan": Tiny("joint", "hunyuan", "text", _SMALL | {"prompt_template": {"template": "{}", "crop_start": 0}}, _TRUE, {"guidance_scale": 2.0}),
    "hunyuan1.5": Tiny("joint", "hunyuan15", "text", {}, {"negative_prompt": NEGATIVE}, {}),
    "easyanimate": Tiny("joint", "easyanimate", "text", {}),
    "motif": Tiny("joint", "motif", "text", _SMALL, {"negative_prompt": NEGATIVE}, {}),
}  # fmt: skip


def _known(name: str) -> Tiny:
    if name not in TINY:
        raise InterpError(f"no tiny pipeline {name!r}; there are {', '.join(TINY)}")
    return TINY[name]


def build(name: str, scheduler: Any = None) -> Any:
    """A fresh pipeline with random weights (the same ones every time); ``scheduler`` replaces its own."""
    entry = _known(name)
    pipe = getattr(import_module(f"interp.tiny.{entry.module}"), entry.function)()
    if scheduler is not None:
        pipe.scheduler = scheduler
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(name: str, guided: bool = True, steps: int = 3, size: int = 32, frames: int = 9) -> dict[str, Any]:
    """Keywords of a small generation: ``frames`` pixel frames of ``size`` x ``size``."""
    entry = _known(name)
    made = {"prompt": PROMPT, "height": size, "width": size, "num_inference_steps": steps, **entry.keywords}
    made |= entry.guidance if guided else entry.unguided
    if entry.mode == "video":
        return made | {"video": [image(size, seed) for seed in range(frames)]}
    if entry.mode == "image":
        made["image"] = image(size)
    return {entry.frames: frames} | made


def image(size: int, seed: int = 0) -> Any:
    """A picture of noise."""
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8))
