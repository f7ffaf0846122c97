"""Wan 2.1, Wan 2.2 (two experts) and TI2V-5B."""

from __future__ import annotations

from interp.families import register
from interp.families.adapter import Adapter, Site, Stack
from interp.families.shapes import cross_block

EMBED = Site("hook_embed", "embed", "patch_embedding", "output")
TIME = Site("hook_time_emb", "vector", "condition_embedder.time_embedder", "output")
BLOCK = cross_block(mlp="ffn", image=True)

WAN = register(Adapter("Wan", ("WanTransformer3DModel",), (Stack("blocks", BLOCK),), (EMBED, TIME)))
