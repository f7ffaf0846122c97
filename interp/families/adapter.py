"""What a family of video transformers must declare, so that the instrument can name its activations.

An :class:`Adapter` is a table: the lists of blocks with the sites inside one block, the sites outside the blocks, and the
layout of latents. Everything else (tracing, caching, replay, guidance) is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from cos_interp.interp.errors import InterpError
from cos_interp.interp.families import decoding
from cos_interp.interp.families.contract import check_sites, check_stacks
from cos_interp.interp.families.layouts import VIDEO, Dims, Layout
from cos_interp.interp.families.sites import DEAD, Block, Point, Site, Stack, has
from cos_interp.interp.views import TokenGrid

__all__ = ["Adapter", "Block", "NoAdapter", "Point", "Site", "Stack", "has"]


def patch_size(config: Any) -> tuple[int, int, int]:
    """Latent frames, rows and columns of one token, from the ways configurations say it.

    ``patch_size`` is ``(frames, rows, columns)``, or a number for rows and columns beside ``patch_size_t`` for frames (1
    where it is missing). Raises InterpError where there is no ``patch_size``: give the adapter its own ``patch``.
    """
    if not hasattr(config, "patch_size"):
        raise InterpError(
            f"the configuration has no patch_size, only {_fields(config)}: give the Adapter patch=lambda config: (frames, rows, "
            "columns) of one token, in latent cells"
        )
    size, by_frame = config.patch_size, getattr(config, "patch_size_t", None)
    if not isinstance(size, int):
        return tuple(size)
    return (by_frame or 1, size, size)


def widths(config: Any) -> tuple[int, int]:
    """``d_model`` and the number of heads, from the ways configurations say it.

    ``num_attention_heads`` and ``attention_head_dim``, or ``model_dim`` and ``axes_dims`` (Kandinsky). Raises InterpError where
    a configuration has neither: give the adapter its own ``sizes``.
    """
    if hasattr(config, "num_attention_heads") and hasattr(config, "attention_head_dim"):
        return config.num_attention_heads * config.attention_head_dim, config.num_attention_heads
    if hasattr(config, "model_dim") and hasattr(config, "axes_dims"):
        return config.model_dim, config.model_dim // sum(config.axes_dims)
    raise InterpError(
        f"the configuration has no num_attention_heads and attention_head_dim, only {_fields(config)}: give the Adapter "
        "sizes=lambda config: (d_model, number of heads)"
    )


def _fields(config: Any) -> str:
    return ", ".join(name for name in config if not name.startswith("_")) or "nothing"


def nothing(config: Any) -> str | None:
    return None


def first_prepared(config: Any, prepared: tuple[Any, ...]) -> Tensor:
    return prepared[0]


def never(transformer: nn.Module) -> bool:
    return False


def any_call(pipe: Any, call: Mapping[str, Any]) -> str | None:
    return None


def any_number(pipe: Any, call: Mapping[str, Any]) -> bool:
    return False


def one(pipe: Any, call: Mapping[str, Any]) -> bool:
    return True


def no_history(config: Any, call: Mapping[str, Any]) -> int:
    return 0


def every_step(scheduler: Any, arguments: Mapping[str, Any]) -> bool:
    return True


def no_breaks(transformer: nn.Module) -> set[int]:
    return set()


def no_blocks(transformer: nn.Module, call: Mapping[str, Any]) -> set[int]:
    return set()


@dataclass(frozen=True)
class Adapter:
    """One family. See docs/adding-a-family.md.

    - ``family``: its name. ``classes``: class names of the transformer. ``stacks``: its lists of blocks.
    - ``ends``: sites outside the blocks, before them (``hook_model_out`` is added after them).
    - ``layout``: the axes of the pipeline's latents, see :mod:`cos_interp.interp.families.layouts`.
    - ``output_item``: where the prediction lies in the tuple that the transformer returns; None where it returns a tensor.
    - ``patch``: latent frames, rows and columns of one token, from the transformer's configuration.
    - ``sizes``: ``d_model`` and the number of heads, from the transformer's configuration.
    - ``decode``: ``(pipe, latents)`` to pixels, see :mod:`cos_interp.interp.families.decoding`.
    - ``per_sample_attention``: the attention runs once for every row of the batch.
    - ``doubled``: which branch comes first where a pipeline runs both in one forward of twice the batch.
    - ``in_turn``: which branch comes first where a pipeline runs them as two forwards and does not say which by
      ``transformer.cache_context("cond")``.
    - ``interleaved``: two stacks whose blocks take turns.
    - ``unbatched``: arguments of the transformer whose first axis is not the batch.
    - ``breaks``: blocks whose input is not the output of the block before, because the family adds something between.
    - ``last_text``: blocks, besides the last one, after which nothing reads the text stream any more; text sites there
      would change nothing and get no name.
    - ``adds_before_attention``: whether blocks add more than the attention between ``hook_resid_pre`` and ``hook_resid_mid``.
    - ``adds_after_mlp``: blocks that add more than the MLP between ``hook_resid_mid2`` and ``hook_resid_post``, from the
      transformer and the arguments of a call.
    - ``refuses``: why a configuration of the family cannot be served, or None.
    - ``channels``: of the latents, where the pipeline's first latents carry further ones.
    - ``given``: the latents whose first frames stay, where the scheduler sees only the later ones, from the transformer's
      configuration and what ``prepare_latents`` returned.
    - ``is_step``: whether a call of the scheduler's step, by its arguments, is the one that ends a denoising step.
    - ``history``: tokens before the video's, from the transformer's configuration and the arguments of a call.
    - ``recalls``: methods of the pipeline, besides ``encode_prompt``, that draw noise or encode conditions outside
      ``prepare_latents``; a replay takes their results from the recording.
    - ``needs``: keywords that the pipeline must be given, since its defaults cannot be followed.
    - ``one_video``: whether a call of the pipeline, by its keywords, makes one video at a time; rows of a replay run one after
      the other.
    - ``refuses_call``: why a call of the pipeline, by its keywords, cannot be followed, or None.
    - ``returned``: what the pipeline returns for its final latents, where that is something else (LTX-2 scales them).
    """

    family: str
    classes: tuple[str, ...]
    stacks: tuple[Stack, ...]
    ends: tuple[Site, ...] = ()
    layout: Layout = VIDEO
    output_item: int | None = 0
    doubled: tuple[str, str] = ("uncond", "cond")
    in_turn: tuple[str, str] = ("cond", "uncond")
    interleaved: bool = False
    per_sample_attention: bool = False
    unbatched: tuple[str, ...] = ()
    last_text: Callable[[nn.Module], set[int]] = no_breaks
    patch: Callable[[Any], tuple[int, int, int]] = patch_size
    sizes: Callable[[Any], tuple[int, int]] = widths
    breaks: Callable[[nn.Module], set[int]] = no_breaks
    channels: Callable[[Any], int] | None = None
    adds_before_attention: Callable[[nn.Module], bool] = never
    adds_after_mlp: Callable[[nn.Module, Mapping[str, Any]], set[int]] = no_blocks
    refuses: Callable[[Any], str | None] = nothing
    given: Callable[[Any, tuple[Any, ...]], Tensor] = first_prepared
    is_step: Callable[[Any, Mapping[str, Any]], bool] = every_step
    history: Callable[[Any, Mapping[str, Any]], int] = no_history
    recalls: tuple[str, ...] = ()
    needs: Mapping[str, Any] = field(default_factory=dict)
    one_video: Callable[[Any, Mapping[str, Any]], bool] = any_number
    refuses_call: Callable[[Any, Mapping[str, Any]], str | None] = any_call
    returned: Callable[[Any, Tensor], Tensor] | None = None
    decode: Callable[[Any, Tensor], Any] = decoding.by_statistics
    notes: str = ""

    def blocks(self, transformer: nn.Module) -> list[tuple[str, Block]]:
        """Path and sites of every block, in order of execution."""
        check_stacks(self.family, transformer, (stack.attribute for stack in self.stacks))
        each = [
            [(f"{stack.attribute}.{i}", stack.sites) for i in range(len(getattr(transformer, stack.attribute)))]
            for stack in self.stacks
        ]
        order = zip(*each, strict=True) if self.interleaved else each
        return [block for some in order for block in some]

    def points(self, transformer: nn.Module) -> dict[str, Point]:
        """All hook points by name, in order of execution."""
        made: list[Point] = []
        add = lambda name, site, path, layer: made.append(Point(name, site, path, len(made), layer))
        for site in self.ends:
            if site.wanted is None or site.wanted(transformer):
                add(site.name, site, site.path, None)
        blocks = self.blocks(transformer)
        last = {len(blocks) - 1, *self.last_text(transformer)}
        for layer, (path, sites) in enumerate(blocks):
            block = transformer.get_submodule(path)
            for site in sites:
                dead = layer in last and site.name.endswith(DEAD)
                if not dead and (site.wanted is None or site.wanted(block)):
                    add(f"blocks.{layer}.{site.name}", site, f"{path}.{site.path}".rstrip("."), layer)
        out = Site("hook_model_out", "latent", "", "output", self.output_item)
        add(out.name, out, "", None)
        check_sites(self.family, transformer, ((point.name, point) for point in made))
        return {point.name: point for point in made}

    def grid(self, transformer: nn.Module, dims: Dims) -> TokenGrid:
        """The token grid of a latent of ``(frames, rows, columns)``; a last incomplete patch of frames counts."""
        frames, rows, cols = self.patch(transformer.config)
        return TokenGrid(-(-dims[0] // frames), dims[1] // rows, dims[2] // cols)

    def call_grid(self, transformer: nn.Module, call: Mapping[str, Any]) -> TokenGrid:
        """The token grid of a transformer call, with the rows of its batch and the tokens before the video's."""
        history = self.history(transformer.config, call)
        return replace(self.grid(transformer, self.dims(call)), batch=call["hidden_states"].shape[0], history=history)

    def dims(self, call: Mapping[str, Any]) -> Dims:
        """Latent frames, rows and columns of a transformer call."""
        return self.layout.dims(call)

    def width(self, transformer: nn.Module) -> tuple[int, int]:
        """``d_model`` and the number of heads."""
        return self.sizes(transformer.config)


class NoAdapter(InterpError):
    """A transformer class that no adapter names."""
