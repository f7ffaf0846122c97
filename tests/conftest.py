"""Tiny random pipelines of the Wan family, built offline; torch on one thread, so that results are bitwise."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import json
from functools import cache

import pytest
import torch

torch.set_num_threads(1)


@cache
def _organism():
    from cos_interp.interp import HookedVideoPipeline

    return HookedVideoPipeline.from_pretrained("organism")


@pytest.fixture
def organism():
    """The shipped organism, loaded once a process."""
    return _organism()


@pytest.fixture
def prompts(tmp_path):
    """A file with two prompts of the user's own."""
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": p}) for p in ("move the red circle", "a green box")))
    return str(path)
