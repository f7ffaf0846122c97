"""The Wan family (2.1, 2.2 with two experts, TI2V-5B): hook names in execution order and where nnsight finds each.

Sites without a module boundary (the residual stream between the sub-layers) are read through nnsight's one-level
``source`` of the block; the labels are pinned to diffusers 0.42 and checked by the tests against plain forward code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from interp.errors import InterpError
from interp.views import TokenGrid

CLASSES = ("WanTransformer3DModel",)


@dataclass(frozen=True)
class Point:
    """One place in a transformer's forward: its public name, and the nnsight location ``path`` + ``key``."""

    name: str
    kind: str
    path: str
    key: str
    order: int
    layer: int | None = None
    item: int | None = None  # position inside a tuple-valued output


# block-level sites in execution order: name, kind, module inside the block, location key
_BLOCK = (
    ("hook_resid_pre", "tokens", "", "input"),
    ("attn.hook_q", "heads", "attn1", "hook_q"),
    ("attn.hook_k", "heads", "attn1", "hook_k"),
    ("attn.hook_v", "heads", "attn1", "hook_v"),
    ("attn.hook_pattern", "pattern", "attn1", "hook_pattern"),
    ("attn.hook_z", "heads", "attn1", "hook_z"),
    ("hook_attn_out", "tokens", "attn1", "output"),
    ("hook_resid_mid", "tokens", "", "source.hidden_states_0"),
    ("cross_attn.hook_image_k", "text_heads", "attn2", "hook_image_k"),
    ("cross_attn.hook_image_v", "text_heads", "attn2", "hook_image_v"),
    ("cross_attn.hook_image_pattern", "pattern", "attn2", "hook_image_pattern"),
    ("cross_attn.hook_image_z", "heads", "attn2", "hook_image_z"),
    ("cross_attn.hook_q", "heads", "attn2", "hook_q"),
    ("cross_attn.hook_k", "text_heads", "attn2", "hook_k"),
    ("cross_attn.hook_v", "text_heads", "attn2", "hook_v"),
    ("cross_attn.hook_pattern", "pattern", "attn2", "hook_pattern"),
    ("cross_attn.hook_z", "heads", "attn2", "hook_z"),
    ("hook_cross_attn_out", "tokens", "attn2", "output"),
    ("hook_resid_mid2", "tokens", "", "source.hidden_states_1"),
    ("hook_mlp_out", "tokens", "ffn", "output"),
    ("hook_resid_post", "tokens", "", "output"),
)


def supports(transformer: torch.nn.Module) -> bool:
    return type(transformer).__name__ in CLASSES


def points(transformer: torch.nn.Module) -> dict[str, Point]:
    """All hook points of a transformer by name, in execution order."""
    if not supports(transformer):
        raise InterpError(
            f"{type(transformer).__name__} has no adapter yet; supported: {', '.join(CLASSES)} (Wan 2.1, Wan 2.2, TI2V-5B)"
        )
    image = getattr(transformer.blocks[0].attn2, "add_k_proj", None) is not None
    found = [
        Point("hook_embed", "embed", "patch_embedding", "output", 0),
        Point("hook_time_emb", "vector", "condition_embedder.time_embedder", "output", 1),
    ]
    for layer in range(len(transformer.blocks)):
        for place, (site, kind, module, key) in enumerate(_BLOCK):
            if "image" in site and not image:
                continue
            path = f"blocks.{layer}" + (f".{module}" if module else "")
            order = 2 + layer * len(_BLOCK) + place
            found.append(Point(f"blocks.{layer}.{site}", kind, path, key, order, layer))
    last = 2 + len(transformer.blocks) * len(_BLOCK)
    found.append(Point("hook_model_out", "latent", "", "output", last, None, 0))
    return {point.name: point for point in found}


def token_grid(transformer: torch.nn.Module, hidden_states: Tensor) -> TokenGrid:
    """The token grid of a call from its input ``[batch, channel, frame, height, width]``."""
    _, _, frames, height, width = hidden_states.shape
    by_frame, by_row, by_col = transformer.config.patch_size
    return TokenGrid(frames // by_frame, height // by_row, width // by_col)


def branch_names(guided: bool) -> tuple[str, ...]:
    """Calls of one step in order: Wan runs the conditional, then the unconditional forward."""
    return ("cond", "uncond") if guided else ("cond",)
