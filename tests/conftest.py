"""Tiny random pipelines of the Wan family, built offline; torch on one thread, so that results are bitwise."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from functools import cache

import pytest
import torch

torch.set_num_threads(1)

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


@cache
def _organism():
    from cos_interp.interp import HookedVideoPipeline

    return HookedVideoPipeline.from_pretrained("organism")


@pytest.fixture
def organism():
    """The shipped organism, loaded once a process."""
    return _organism()
