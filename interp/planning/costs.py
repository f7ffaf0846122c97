"""Operations and bytes of a model at a size, from the shapes of its modules."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from cos_interp.interp.call import FRAMES as OTHER_NAMES
from cos_interp.interp.families.sites import Block, Site
from cos_interp.interp.hooking import activation_bytes, kind_of
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.own_size import own_size
from cos_interp.interp.run.engine import ExpertEngine
from cos_interp.interp.run.refusing import check_patches
from cos_interp.interp.views import TokenGrid

# how pipelines name what their autoencoder reduces, the frames that they are asked for, and the tokens of what they read
BY_TIME, BY_SPACE = (
    ("vae_scale_factor_temporal", "vae_temporal_compression_ratio", "vae_temporal_scale_factor"),
    ("vae_scale_factor_spatial", "vae_spatial_compression_ratio", "vae_spatial_scale_factor", "vae_scale_factor"),
)
FRAMES = ("num_frames", *OTHER_NAMES, "num_frames_per_chunk", "segment_frame_length")
VIDEOS = ("video", "control_video")  # that are given, and say how many
READ = ("tokenizer_max_length", "tokenizer_2_max_length", "vision_num_semantic_tokens")
TEXT = 256  # tokens of a text where the pipeline does not say
MODULATION = ("norm", "mod", "adaln", "scale_shift", "time")  # linear layers of the timestep: one token
TEXT_LAYERS = ("add_", "context", "_text", "txt")  # of a text that has a stream of its own
KEYS = ("to_k", "to_v", "to_key", "to_value")  # of an attention
IMAGE_KEYS = ("add_k_proj", "add_v_proj", "k_img", "v_img")  # of a picture, in an attention to a text
TEXT_HEADS = ("text_heads", "frame_text_heads")


@dataclass(frozen=True)
class Shape:
    """A model at a size. ``pixels``: (frames, height, width) of the video, ``latent``: (channel, frame, row, col). ``text``,
    ``image``: tokens of the text and of the pictures that it reads, at most: a shorter prompt has fewer in some families.
    ``sound``: those of the sound that it makes."""

    model: HookedVideoPipeline
    pixels: tuple[int, int, int]
    latent: tuple[int, int, int, int]
    grid: TokenGrid
    text: int
    image: int = 0
    sound: int = 0

    @classmethod
    def of(cls, model: HookedVideoPipeline, call: Mapping[str, Any]) -> Shape:
        """The shape of a call of the model; what it does not say is the pipeline's own."""
        said = {**model.defaults, **{k: v for k, v in call.items() if v is not None}}
        made = own_size(model.pipe, said)
        square = getattr(model.pipe, "target_size", 1)  # of pipelines that take their size from the picture
        height, width = (made.get(key, square) for key in ("height", "width"))
        asked = [said.get(key) for key in FRAMES] + [len(said[key]) for key in VIDEOS if isinstance(said.get(key), list)]
        frames = next((n for n in (*asked, *map(model.default, FRAMES)) if isinstance(n, int)), made.get("num_frames", 1))
        time, space = (
            next((getattr(model.pipe, n) for n in names if hasattr(model.pipe, n)), 1) for names in (BY_TIME, BY_SPACE)
        )
        module = next(iter(model.engines.values())).module
        dims = ((frames - 1) // time + 1, height // space, width // space)
        if all(key in call for key in ("height", "width")):
            check_patches(model.pipe, said, dims, model.adapter.patch(module.config))
        return cls(model, (frames, height, width), (_channels(model), *dims), model.adapter.grid_at(module, dims),
                   *_read(model, said), _sound(model, frames, said))  # fmt: skip

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
        """Of linear layers and convolutions, each at the tokens that it sees, and of the attentions."""
        cross = {s.path: s for s in sites if s.kind in TEXT_HEADS and s.path and not s.name.startswith("attn.")}
        joint = any(s.name == "attn.hook_q_text" or s.name == "hook_attn_out_text" for s in sites)
        text = self.text + (self.image if joint else 0)
        one_stream = joint and not any(word in name for name, _ in block.named_modules() for word in TEXT_LAYERS)
        video = self.grid.tokens + self.grid.history + (text if one_stream else 0)
        total = 0.0
        for name, module in block.named_modules():
            if isinstance(module, nn.Linear):
                total += 2.0 * module.in_features * module.out_features * self._tokens(name, cross, video, text)
            elif isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                total += 2.0 * module.weight.numel() * self._tokens(name, cross, video, text)
        patterned = {site.name.rpartition(".")[0] for site in sites if site.name.endswith("hook_pattern")}
        ends = [site for site in sites if site.name.endswith(("hook_z", "hook_image_z"))]
        return total + sum(self._attention(site, text if joint else 0, patterned) for site in ends)

    def _tokens(self, name: str, cross: Mapping[str, Site], video: int, text: int) -> int:
        """The tokens at which a layer computes."""
        parent, _, last = name.rpartition(".")
        if any(word in name for word in MODULATION):
            return 1
        if _of_sound(name):
            return self.sound
        if (site := cross.get(parent)) is not None:
            if last in IMAGE_KEYS:
                return self.image
            return text * self._copies(site.fold) if last in KEYS else video
        return text if any(word in name for word in TEXT_LAYERS) else video

    def _copies(self, fold: str | None) -> int:
        """How often a text is read: by each frame, or position, that is folded into the batch."""
        return {"spatial": self.grid.frames, "temporal": self.grid.tokens // self.grid.frames}.get(fold or "", 1)

    def _attention(self, site: Site, text: int, patterned: Collection[str]) -> float:
        """Scores and weighted sum of one attention, ``2 x 2 x queries x keys x width``; ``text``: its tokens where both streams
        meet in it. Without a pattern it is linear: the keys meet the values first, and queries see as many numbers as a head."""
        width, heads = self.model.adapter.width(self.engine.module)
        tokens = self.grid.tokens + self.grid.history + text
        if not site.name.startswith("attn."):
            return 4.0 * self.grid.tokens * (self.image if "image" in site.name else self.text) * width
        if "attn" not in patterned:
            return 4.0 * tokens * (width // heads) * width
        keys = {"spatial": self.grid.tokens // self.grid.frames + text, "temporal": self.grid.frames + text}
        return 4.0 * tokens * keys.get(site.fold or "", tokens) * width

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
        return self._activations[name]

    @cached_property
    def _activations(self) -> dict[str, int]:
        kinds = {name: kind_of(self.model.engines, name) for name in self.model.hook_names}
        return activation_bytes(self.engine, kinds, self.grid, 1)

    def forward(self, rows: int) -> int:
        """About the bytes that a forward of so many rows has alive at once: the residual stream, what a norm, queries, keys and
        values take (in float32 where the norm is), and the wide layer of the MLP."""
        width, _ = self.model.adapter.width(self.engine.module)
        size = self.engine.module.dtype.itemsize
        return rows * (self.grid.tokens + self.text) * width * (8 * size + 2 * 4)

    def graph(self, rows: int) -> int:
        """About the bytes, at most, that a way back through one forward of so many rows needs of it: of every block what its
        linear layers give, and what stands between them (in float32 where the norms are). Weights have no gradients."""
        width, _ = self.model.adapter.width(self.engine.module)
        size, total = self.engine.module.dtype.itemsize, 0
        for path, _ in self.model.adapter.blocks(self.engine.module):
            layers = [m for m in self.engine.module.get_submodule(path).modules() if isinstance(m, nn.Linear)]
            total += self.grid.tokens * sum(layer.out_features for layer in layers) * size
            total += (self.grid.tokens + self.text) * width * (8 * size + 2 * 4)
        return rows * total

    @property
    def latent_bytes(self) -> int:
        """Bytes of one latent in float32."""
        return math.prod(self.latent) * 4

    @property
    def clip_bytes(self) -> int:
        """Bytes of one decoded video of 8 bits."""
        return math.prod(self.pixels) * 3


def _read(model: HookedVideoPipeline, said: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens of the text and of the pictures that a model reads, at most."""
    pipe, asked = model.pipe, said.get("max_sequence_length", model.default("max_sequence_length"))
    named = sum(n for name in READ if isinstance(n := getattr(pipe, name, None), int))
    parts = [part for name, part in pipe.components.items() if isinstance(part, nn.Module) and "image" in name]
    places = (getattr(module, "num_positions", None) for part in parts for module in part.modules())
    image = 0 if named else next((n for n in places if isinstance(n, int)), 0)
    return (asked if isinstance(asked, int) else named or TEXT), image


def _sound(model: HookedVideoPipeline, frames: int, said: Mapping[str, Any]) -> int:
    """Tokens of a video's sound; 0 of a model without."""
    pipe, rate = model.pipe, said.get("frame_rate", model.default("frame_rate"))
    named = [getattr(pipe, f"audio_{name}", None) for name in ("sampling_rate", "hop_length", "vae_temporal_compression_ratio")]
    if rate is None or None in named:
        return 0
    sampled, hop, compressed = (float(one or 0) for one in named)
    return round(frames / rate * sampled / hop / compressed)


def _of_sound(name: str) -> bool:
    """Whether a layer computes at the sound's tokens: of ``x_to_y``, keys and values are x's, all else y's."""
    giver, _, taker = name.partition("_to_")
    return "audio" in (giver if not taker or name.rpartition(".")[2] in KEYS else taker)


def _channels(model: HookedVideoPipeline) -> int:
    vae = getattr(model.pipe, "vae", None)
    for name in ("z_dim", "latent_channels"):
        if vae is not None and isinstance(found := vae.config.get(name), int):
            return found
    return int(next(iter(model.engines.values())).module.config.get("out_channels") or 16)
