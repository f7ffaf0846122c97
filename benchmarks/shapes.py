"""The models that are measured: the organism, and Wan transformers of random weights with small parts around them."""

from __future__ import annotations

from typing import Any

from PIL import Image

from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.families.tiny import wan
from cos_interp.tasks import get_task

ORGANISM = "organism"
RANDOM = {  # layers x width x tokens: keywords of the transformer, pixels (height, width, frames)
    "3x24x24": ({}, (32, 48, 13)),
    "12x384x320": ({"num_layers": 12, "num_attention_heads": 6, "attention_head_dim": 64, "ffn_dim": 1536}, (128, 128, 17)),
    "8x768x320": ({"num_layers": 8, "num_attention_heads": 12, "attention_head_dim": 64, "ffn_dim": 3072}, (128, 128, 17)),
}
SHAPES = (ORGANISM, *RANDOM)


def model(shape: str, steps: int) -> tuple[HookedVideoPipeline, dict[str, Any]]:
    """A model and the keywords of a generation of so many steps without guidance."""
    call = {"prompt": "go to the red goal", "num_inference_steps": steps, "guidance_scale": 1.0}
    if shape == ORGANISM:
        maze = get_task("maze").sample(seed=8, difficulty=5, unique=False, split="test")
        item = {"prompt": maze.prompt, "image": Image.fromarray(maze.first_frame)}
        return HookedVideoPipeline.from_pretrained(ORGANISM), call | item
    keywords, pixels = RANDOM[shape]
    return random_model(pixels, **keywords), call | dict(zip(("height", "width", "num_frames"), pixels, strict=True))


def random_model(pixels: tuple[int, int, int], **keywords: Any) -> HookedVideoPipeline:
    """Wan's pipeline with a transformer of random weights."""
    from diffusers import WanPipeline

    made = wan.transformer("WanTransformer3DModel", rope_max_seq_len=64, **keywords)
    pipe = WanPipeline(transformer=made, **wan.parts(wan.flow()))
    pipe.set_progress_bar_config(disable=True)
    return HookedVideoPipeline.from_pipeline(pipe)
