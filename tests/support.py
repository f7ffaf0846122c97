"""What tests of several rooms share: tiny random pipelines, built offline, and the untouched pipeline's own run."""

from __future__ import annotations

import torch

from cos_interp.interp import HookedVideoPipeline
from cos_interp.tasks import Item, get_task

TINY = {
    "wan21-t2v": "wan2.1",
    "wan21-i2v": "wan2.1-i2v",
    "wan22-t2v": "wan2.2",
    "wan22-i2v": "wan2.2-i2v",
    "ti2v-5b": "wan2.2-ti2v-5b",
}
FAMILIES = tuple(TINY)


def build_tiny(family: str, scheduler: str = "euler"):
    """A fresh tiny pipeline: wan21-t2v, wan21-i2v (image encoder), wan22-t2v, wan22-i2v (two experts) or ti2v-5b."""
    from cos_interp.interp.families import tiny
    from cos_interp.interp.families.tiny.wan import flow

    return tiny.build(TINY[family], flow(scheduler))


def tiny_call(family: str, guidance: float = 3.0, steps: int = 4) -> dict:
    """Pipeline keywords of a small generation."""
    from cos_interp.interp.families import tiny

    return tiny.call(TINY[family], steps=steps) | {"guidance_scale": guidance}


def hooked_tiny(family: str = "wan21-t2v", **kwargs) -> HookedVideoPipeline:
    pipe = build_tiny(family, **kwargs)
    return HookedVideoPipeline(pipe, type(pipe).__name__, {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 12})


def plain(pipe, call, seed=0):
    """Final latents of the untouched pipeline."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return pipe(**call, generator=generator, output_type="latent", return_dict=False)[0]


def occluded(kind: str) -> Item:
    """An item of the occlusion task: the object goes behind a ``wall``, or a ``board`` comes before it."""
    task = get_task("occlusion")
    return next(item for seed in range(50) if (item := task.sample(seed)).metadata["kind"] == kind)
