"""Tiny random pipelines of every supported family, built offline in milliseconds: for tests, here and of your own.

from cos_interp.interp import tiny
model = HookedVideoPipeline.from_pipeline(tiny.build("cogvideox"))
run = model.run(seed=0, **tiny.call("cogvideox"))
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch

from cos_interp.interp.errors import InterpError
from cos_interp.interp.families.ltx2 import OTHER_GUIDANCE

PROMPT, NEGATIVE = "move the red circle above the box", "a blue square"


@dataclass(frozen=True)
class Tiny:
    """How to build one pipeline, and its keywords; ``guidance`` are those that turn classifier-free guidance on."""

    module: str
    function: str
    mode: str  # what it is conditioned on besides text: text, image, video, animate, face, or given by the function `given`
    keywords: dict[str, Any] = field(default_factory=dict)
    guidance: dict[str, Any] = field(default_factory=lambda: {"guidance_scale": 3.0, "negative_prompt": NEGATIVE})
    unguided: dict[str, Any] = field(default_factory=lambda: {"guidance_scale": 1.0})
    frames: str = "num_frames"
    embeddings: str | None = None  # function that makes prompt embeddings, where no tiny text encoder exists
    given: str | None = None  # function (size, frames) that makes the pictures, videos and masks
    sized: bool = True  # takes height and width


_SHORT = {"max_sequence_length": 12}
_CHAT = {"max_sequence_length": 40}
_LONG = {"max_sequence_length": 512}
_SANA = _SHORT | {"use_resolution_binning": False, "complex_human_instruction": []}
_LLAMA = _SHORT | {"prompt_template": {"template": "{}", "crop_start": 0}}
_EMBEDDED = {"guidance_scale": 2.0}  # an input of HunyuanVideo's transformer, not classifier-free guidance
_GUIDER = {"guidance": {"negative_prompt": NEGATIVE}, "unguided": {}}
_TRUE = {"guidance": _EMBEDDED | {"true_cfg_scale": 3.0, "negative_prompt": NEGATIVE}, "unguided": _EMBEDDED}
_TRUE_EMBEDDINGS = {
    "guidance": _EMBEDDED | {"true_cfg_scale": 3.0}, "unguided": _EMBEDDED, "embeddings": "hunyuan_embeddings",
}  # fmt: skip
_LTX2 = _SHORT | OTHER_GUIDANCE
_BOTH_OFF = {"unguided": {"guidance_scale": 1.0, "audio_guidance_scale": 1.0}}
_KANDINSKY = {"guidance": {"guidance_scale": 3.0}, "embeddings": "kandinsky_embeddings"}

TINY: dict[str, Tiny] = {
    "wan2.1": Tiny("wan", "wan21", "text", _SHORT),
    "wan2.1-i2v": Tiny("wan", "wan21_image", "image", _LONG),
    "wan2.1-v2v": Tiny("wan", "wan_video", "video", _SHORT | {"strength": 0.8}),
    "wan2.2": Tiny("wan", "wan22", "text", _SHORT),
    "wan2.2-i2v": Tiny("wan", "wan22_image", "image", _SHORT),
    "wan2.2-ti2v-5b": Tiny("wan", "ti2v_5b", "image", _SHORT),
    "wan-vace": Tiny("wan", "vace", "text", _SHORT),
    "wan2.2-vace": Tiny("conditioned", "vace22", "text", _SHORT),
    "wan-lucy-edit": Tiny("conditioned", "lucy", "video", _SHORT),
    "wan-animate": Tiny("wan", "animate", "animate", _LONG | {"segment_frame_length": 9}),
    "skyreels-v2": Tiny("wan", "skyreels", "text", _SHORT),
    "skyreels-v2-i2v": Tiny("wan", "skyreels_image", "image", _LONG),
    "chronoedit": Tiny("wan", "chronoedit", "image", _LONG),
    "ltx": Tiny("cross", "ltx", "text", _SHORT),
    "ltx-i2v": Tiny("cross", "ltx_image", "image", _SHORT),
    "ltx2": Tiny("ltx2", "ltx2", "text", _LTX2, **_BOTH_OFF),
    "ltx2-i2v": Tiny("ltx2", "ltx2_image", "image", _LTX2 | {"image_crf": 0}, **_BOTH_OFF),
    "ltx2-condition": Tiny("conditioned", "ltx2_condition", "given", _LTX2, **_BOTH_OFF, given="first_frame"),
    "allegro": Tiny("cross", "allegro", "text", _SHORT),
    "latte": Tiny("cross", "latte", "text", {"video_length": 3}, frames="video_length"),
    "cosmos1": Tiny("cross", "cosmos1", "text", _SHORT),
    "cosmos1-v2w": Tiny("conditioned", "cosmos1_video", "given", _SHORT, given="first_frames"),
    "cosmos2-v2w": Tiny("cross", "cosmos2_image", "image", _SHORT),
    "cosmos2.5": Tiny("conditioned", "cosmos25", "text", _CHAT),
    "cosmos2.5-v2w": Tiny("conditioned", "cosmos25", "given", _CHAT | {"num_latent_conditional_frames": 1}, given="first_frames"),
    "cosmos2.5-transfer": Tiny("conditioned", "cosmos25_transfer", "given", _CHAT, given="controls"),
    "sana-video": Tiny("cross", "sana", "text", _SANA, frames="frames"),
    "sana-video-i2v": Tiny("cross", "sana_image", "image", _SANA, frames="frames"),
    "kandinsky5": Tiny("cross", "kandinsky", "text", **_KANDINSKY),
    "kandinsky5-i2v": Tiny("cross", "kandinsky_image", "image", {"num_frames": 25}, **_KANDINSKY),
    "cogvideox": Tiny("joint", "cogvideox", "text", _SHORT),
    "cogvideox-5b": Tiny("joint", "cogvideox_5b", "text", _SHORT),
    "cogvideox-i2v": Tiny("joint", "cogvideox_image", "image", _SHORT),
    "cogvideox-v2v": Tiny("joint", "cogvideox_video", "video", _SHORT | {"strength": 0.8}),
    "cogvideox-control": Tiny("conditioned", "cogvideox_control", "given", _SHORT, given="control_video"),
    "consisid": Tiny("joint", "consisid", "face", _SHORT),
    "mochi": Tiny("joint", "mochi", "text", _SHORT),
    "hunyuan": Tiny("joint", "hunyuan", "text", _LLAMA, **_TRUE),
    "hunyuan-i2v": Tiny("joint", "hunyuan_image", "image", **_TRUE_EMBEDDINGS),
    "hunyuan-i2v-concat": Tiny("joint", "hunyuan_image_concat", "image", **_TRUE_EMBEDDINGS),
    "hunyuan-skyreels-i2v": Tiny("conditioned", "hunyuan_skyreels", "image", _LLAMA, **_TRUE),
    "framepack": Tiny("joint", "framepack", "image", _LLAMA | {"latent_window_size": 3}, **_TRUE),
    "hunyuan1.5": Tiny("joint", "hunyuan15", "text", **_GUIDER),
    "hunyuan1.5-i2v": Tiny("conditioned", "hunyuan15_image", "image", **_GUIDER, sized=False),
    "easyanimate": Tiny("joint", "easyanimate", "text"),
    "easyanimate-inpaint": Tiny("conditioned", "easyanimate_inpaint", "given", given="masked_video"),
    "easyanimate-control": Tiny("conditioned", "easyanimate_control", "given", given="control_tensor"),
    "motif": Tiny("joint", "motif", "text", _SHORT, **_GUIDER),
    "motif-i2v": Tiny("conditioned", "motif_image", "image", _SHORT, **_GUIDER),
}


def _known(name: str) -> Tiny:
    if name not in TINY:
        raise InterpError(f"no tiny pipeline {name!r}; there are {', '.join(TINY)}")
    return TINY[name]


def _function(entry: Tiny, name: str) -> Any:
    return getattr(import_module(f"cos_interp.interp.families.tiny.{entry.module}"), name)


def build(name: str, scheduler: Any = None) -> Any:
    """A fresh pipeline with random weights (the same ones every time); ``scheduler`` replaces its own."""
    entry = _known(name)
    pipe = _function(entry, entry.function)()
    if scheduler is not None:
        pipe.scheduler = scheduler
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(name: str, guided: bool = True, steps: int = 3, size: int = 32, frames: int = 9) -> dict[str, Any]:
    """Keywords of a small generation: ``frames`` pixel frames of ``size`` x ``size``."""
    entry = _known(name)
    made = {"prompt": PROMPT, "num_inference_steps": steps, **entry.keywords}
    made |= {"height": size, "width": size} if entry.sized else {}
    made |= entry.guidance if guided else entry.unguided
    if entry.embeddings is not None:
        del made["prompt"]
        made |= _function(entry, entry.embeddings)(guided)
    if entry.given is not None:
        return made | _function(entry, entry.given)(size, frames)
    if entry.mode == "video":
        return made | {"video": [image(size, seed) for seed in range(frames)]}
    if entry.mode == "animate":
        videos = {f"{kind}_video": [image(size, seed) for seed in range(frames)] for kind in ("pose", "face")}
        return made | {"image": image(size), **videos}
    if entry.mode == "face":
        made |= {"id_vit_hidden": [torch.ones(1, 2, 4)], "id_cond": torch.ones(1, 4)}
    if entry.mode in ("image", "face"):
        made["image"] = image(size)
    return {entry.frames: frames} | made


def image(size: int, seed: int = 0) -> Any:
    """A picture of noise."""
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8))
