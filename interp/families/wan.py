"""Wan 2.1, Wan 2.2 (two experts), TI2V-5B, and the models built from the same blocks."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from cos_interp.interp.families import decoding, register
from cos_interp.interp.families.adapter import Adapter, Site, Stack, one
from cos_interp.interp.families.shapes import cross_block

EMBED = Site("hook_embed", "embed", "patch_embedding", "output")
TIME = Site("hook_time_emb", "vector", "condition_embedder.time_embedder", "output")
BLOCK = cross_block(mlp="ffn", image=True)

WAN = register(Adapter("Wan", ("WanTransformer3DModel",), (Stack("blocks", BLOCK),), (EMBED, TIME)))

# the same blocks; SkyReels and ChronoEdit differ in conditioning only
SKYREELS = register(Adapter("SkyReels-V2", ("SkyReelsV2Transformer3DModel",), (Stack("blocks", BLOCK),), (EMBED, TIME)))
CHRONOEDIT = register(Adapter("ChronoEdit", ("ChronoEditTransformer3DModel",), (Stack("blocks", BLOCK),), (EMBED, TIME)))


def vace_breaks(transformer: nn.Module) -> set[int]:
    """Blocks after which a control hint is added."""
    return {layer + 1 for layer in transformer.config.vace_layers}


def animate_breaks(transformer: nn.Module) -> set[int]:
    """Blocks after which the face adapter adds its output."""
    return {layer + 1 for layer in range(0, len(transformer.blocks), transformer.config.inject_face_latents_blocks)}


def after_reference(pipe: Any, latents: Tensor) -> Tensor:
    """Without the first latent frame, which holds the reference image."""
    return decoding.by_statistics(pipe, latents[:, :, 1:])


VACE = register(
    Adapter(
        "Wan VACE",
        ("WanVACETransformer3DModel",),
        (Stack("blocks", BLOCK),),
        (EMBED, TIME),
        breaks=vace_breaks,
        one_video=one,
    )
)
ANIMATE = register(
    Adapter("Wan Animate", ("WanAnimateTransformer3DModel",), (Stack("blocks", BLOCK),), (EMBED, TIME), breaks=animate_breaks)
)
