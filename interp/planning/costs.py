"""Operations and bytes of a model at a size, from the shapes of its modules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from cos_interp.interp.families.sites import Block
from cos_interp.interp.hooking import activation_bytes, kind_of
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.own_size import own_size
from cos_interp.interp.run.engine import ExpertEngine
from cos_interp.interp.views import TokenGrid

BY_TIME, BY_SPACE = (
    ("vae_scale_factor_temporal", "vae_temporal_compression_ratio", "vae_temporal_scale_factor"),
    ("vae_scale_factor_spatial", "vae_spatial_compression_ratio", "vae_spatial_scale_factor"),
)  # how pipelines name what their autoencoder reduces
TEXT = 256  # tokens of a text where the pipeline does not say
MODULATION = ("norm", "mod", "adaln", "scale_shift", "time")  # linear layers of the timestep: one token
TEXT_LAYERS = ("add_", "context", "_text", "txt")  # of a text that has a stream of its own


@dataclass(frozen=True)
class Shape:
    """A model at a size. ``pixels``: (frames, height, width) of the video, ``latent``: (channel, frame, row, col)."""

    model: HookedVideoPipeline
    pixels: tuple[int, int, int]
    latent: tuple[int, int, int, int]
    grid: TokenGrid
    text: int

    @classmethod
    def of(cls, model: HookedVideoPipeline, call: Mapping[str, Any]) -> Shape:
        """The shape of a call of the model; what it does not say is the pipeline's own."""
        made = own_size(model.pipe, {**model.defaults, **{k: v for k, v in call.items() if v is not None}})
        frames, height, width = (made.get(key, 1) for key in ("num_frames", "height", "width"))
        time, space = (
            next((getattr(model.pipe, n) for n in names if hasattr(model.pipe, n)), 1) for names in (BY_TIME, BY_SPACE)
        )
        engine = next(iter(model.engines.values()))
        dims = ((frames - 1) // time + 1, height // space, width // space)
        asked = {**model.defaults, **call}.get("max_sequence_length", model.default("max_sequence_length"))
        return cls(model, (frames, height, width), (_channels(model), *dims), model.adapter.grid(engine.module, dims),
                   asked if isinstance(asked, int) else TEXT)  # fmt: skip

    @property
    def engine(self) -> ExpertEngine:
        """The first expert; both have the same shapes."""
        return next(iter(self.model.engines.values()))

    @cached_property
    def block_flops(self) -> float:
        """Floating-point operations of one block for one row, on average over the blocks: of its linear layers and its attention,
        two for each multiplication and addition. Other operations are some percent of these."""
        blocks = self.model.adapter.blocks(self.engine.module)
        return sum(self._flops(self.engine.module.get_submodule(path), sites) for path, sites in blocks) / len(blocks)

    def _flops(self, block: nn.Module, sites: Block) -> float:
        cross = {
            s.path for s in sites if s.kind in ("text_heads", "frame_text_heads") and s.path and not s.name.startswith("attn.")
        }
        joint = any(s.name == "attn.hook_q_text" or s.name == "hook_attn_out_text" for s in sites)
        one_stream = joint and not any(word in name for name, _ in block.named_modules() for word in TEXT_LAYERS)
        video = self.grid.tokens + (self.text if one_stream else 0)
        total = 0.0
        for name, module in block.named_modules():
            if isinstance(module, nn.Linear):
                total += 2.0 * module.in_features * module.out_features * self._tokens(name, cross, video)
        return total + sum(self._attention(site, joint) for site in sites if site.name.endswith("hook_z"))

    def _tokens(self, name: str, cross: set[str], video: int) -> int:
        parent, _, last = name.rpartition(".")
        if any(word in name for word in MODULATION):
            return 1
        of_text = any(word in name for word in TEXT_LAYERS) or (last in ("to_k", "to_v") and parent in cross)
        return self.text if of_text else video

    def _attention(self, site: Any, joint: bool) -> float:
        """Scores and weighted sum of one attention, ``2 x 2 x queries x keys x width``."""
        width, _ = self.model.adapter.width(self.engine.module)
        tokens, frames = self.grid.tokens, self.grid.frames
        if not site.name.startswith("attn."):
            return 4.0 * tokens * self.text * width
        keys = {"spatial": tokens // frames, "temporal": frames}.get(site.fold or "", tokens)
        both = self.text if joint else 0
        return 4.0 * (tokens + both) * (keys + both) * width

    # --- bytes -------------------------------------------------------------------------------------------------------

    @cached_property
    def weights(self) -> dict[str, int]:
        """Bytes of the weights of every component, in the type that they are loaded in."""
        modules = {name: part for name, part in self.model.pipe.components.items() if isinstance(part, nn.Module)}
        return {name: sum(p.numel() * p.itemsize for p in part.parameters()) for name, part in modules.items()}

    @property
    def block_weights(self) -> int:
        """Bytes of the weights of the largest block."""
        module = self.engine.module
        paths = [path for path, _ in self.model.adapter.blocks(module)]
        return max(sum(p.numel() * p.itemsize for p in module.get_submodule(path).parameters()) for path in paths)

    def activation(self, name: str) -> int:
        """Bytes of one activation of one row, at most."""
        return activation_bytes(self.engine, {name: kind_of(self.model.engines, name)}, self.grid, 1)[name]

    def forward(self, rows: int) -> int:
        """About the bytes that a forward of so many rows has alive at once: the residual stream, what a norm, queries, keys and
        values take (in float32 where the norm is), and the wide layer of the MLP."""
        width, _ = self.model.adapter.width(self.engine.module)
        size = self.engine.module.dtype.itemsize
        return rows * (self.grid.tokens + self.text) * width * (8 * size + 2 * 4)

    @property
    def latent_bytes(self) -> int:
        """Bytes of one latent in float32."""
        return math.prod(self.latent) * 4

    @property
    def clip_bytes(self) -> int:
        """Bytes of one decoded video of 8 bits."""
        return math.prod(self.pixels) * 3


def _channels(model: HookedVideoPipeline) -> int:
    vae = getattr(model.pipe, "vae", None)
    for name in ("z_dim", "latent_channels"):
        if vae is not None and isinstance(found := vae.config.get(name), int):
            return found
    return int(next(iter(model.engines.values())).module.config.get("out_channels") or 16)
