"""What a family of video transformers must declare, so that the instrument can name its activations.

An :class:`Adapter` says where the blocks lie and the sites inside one, the sites outside the blocks, and the layout of
latents. Everything else (tracing, caching, replay, guidance) is shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from cos_interp.interp.errors import InterpError
from cos_interp.interp.families import decoding
from cos_interp.interp.families.contract import check_sites, check_stacks
from cos_interp.interp.families.layouts import VIDEO, Dims, Layout
from cos_interp.interp.families.sites import DEAD, EXPERTS, Block, Point, Site, Stack, Transformer, has
from cos_interp.interp.views import TokenGrid

__all__ = ["PICTURE_HIDDEN", "Adapter", "Block", "NoAdapter", "Point", "Site", "Stack", "has"]


PICTURE_HIDDEN = "its first latent frame is its picture's, and not shown"


class NoAdapter(InterpError):
    """A transformer class that no adapter names."""


class Adapter:
    """One family: a subclass says what is particular about it, and all that it leaves out has the plain answer given here.

    Its facts are class attributes, the first three are needed:

    - ``family``: its name. ``classes``: class names of the transformer. ``stacks``: its lists of blocks.
    - ``ends``: sites outside the blocks, before them (``hook_model_out`` is added after them).
    - ``layout``: the axes of the pipeline's latents, see :mod:`cos_interp.interp.families.layouts`.
    - ``output_item``: where the prediction lies in the tuple that the transformer returns; None where it returns a tensor.
    - ``doubled``: which branch comes first where a pipeline runs both in one forward of twice the batch.
    - ``in_turn``: which branch comes first where a pipeline runs them as two forwards and does not say which by
      ``transformer.cache_context("cond")``.
    - ``interleaved``: two stacks whose blocks take turns.
    - ``per_sample_attention``: the attention runs once for every row of the batch.
    - ``picture_first``: in the text's stream the tokens of a picture come before those of the prompt, where there are any.
    - ``unbatched``: arguments of the transformer whose first axis is not the batch.
    - ``recalls``: methods of the pipeline, besides ``encode_prompt``, that draw noise or encode conditions outside
      ``prepare_latents``; a replay takes their results from the recording, and a batch with a picture a row each row's own.
    - ``apart``: how the class names of pipelines begin whose own batch fails, or is not each of its rows alone (Latte cuts the
      text of single rows only): its rows are begun one by one. ``("",)`` is all of them.
    - ``needs``: keywords that the pipeline must be given, since its defaults cannot be followed.
    - ``notes``: what a user should know, for docs/models.md.

    What depends on the model or on the call is a method: ``config`` is the transformer's configuration, ``call`` the keywords
    of the pipeline or of the transformer, layers are counted through all stacks. See docs/adding-a-family.md.
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
    picture_first: bool = False
    unbatched: tuple[str, ...] = ()
    recalls: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    needs: Mapping[str, Any] = {}
    notes: str = ""

    # --- the configuration ---------------------------------------------------------------------------------------

    def refuses(self, config: Any) -> str | None:
        """Why a configuration of the family cannot be served."""
        return None

    def patch(self, config: Any) -> tuple[int, int, int]:
        """Latent frames, rows and columns of one token.

        Here from ``patch_size``: ``(frames, rows, columns)``, or a number for rows and columns beside ``patch_size_t`` for
        frames (1 where it is missing). Raises InterpError where there is no ``patch_size``.
        """
        if not hasattr(config, "patch_size"):
            raise InterpError(
                f"the configuration has no patch_size, only {_fields(config)}: give the adapter a method patch(self, config) "
                "that returns (frames, rows, columns) of one token, in latent cells"
            )
        size, by_frame = config.patch_size, getattr(config, "patch_size_t", None)
        if isinstance(size, int):
            return by_frame or 1, size, size
        frames, rows, cols = size
        return frames, rows, cols

    def sizes(self, config: Any) -> tuple[int, int]:
        """``d_model`` and the number of heads.

        Here from ``num_attention_heads`` and ``attention_head_dim``, or ``model_dim`` and ``axes_dims`` (Kandinsky). Raises
        InterpError where a configuration has neither.
        """
        if hasattr(config, "num_attention_heads") and hasattr(config, "attention_head_dim"):
            return config.num_attention_heads * config.attention_head_dim, config.num_attention_heads
        if hasattr(config, "model_dim") and hasattr(config, "axes_dims"):
            return config.model_dim, config.model_dim // sum(config.axes_dims)
        raise InterpError(
            f"the configuration has no num_attention_heads and attention_head_dim, only {_fields(config)}: give the adapter a "
            "method sizes(self, config) that returns (d_model, number of heads)"
        )

    # --- the blocks ----------------------------------------------------------------------------------------------

    def breaks(self, transformer: Transformer) -> set[int]:
        """Layers whose input is not the output of the layer before, because the family adds something between."""
        return set()

    def rereads(self, transformer: Transformer, layer: int) -> bool:
        """Whether blocks after a layer see the latents by another way than the residual stream (VACE, control networks)."""
        return False

    def last_text(self, transformer: Transformer) -> set[int]:
        """Layers, besides the last one, after which nothing reads the text stream any more.

        Text sites there would change nothing and get no name.
        """
        return set()

    def adds_before_attention(self, transformer: Transformer) -> bool:
        """Whether blocks add more than the attention between ``hook_resid_pre`` and ``hook_resid_mid``."""
        return False

    def adds_after_mlp(self, transformer: Transformer, call: Mapping[str, Any]) -> set[int]:
        """Layers that add more than the MLP between ``hook_resid_mid2`` and ``hook_resid_post`` in a transformer call."""
        return set()

    def history(self, config: Any, call: Mapping[str, Any]) -> int:
        """Tokens before the video's in a transformer call."""
        return 0

    def history_at(self, config: Any, dims: Dims) -> int:
        """The same of a latent of ``(frames, rows, columns)``, before there is a call."""
        return 0

    def grid_at(self, transformer: Transformer, dims: Dims) -> TokenGrid:
        """The token grid of such a latent, with what lies before it."""
        return replace(self.grid(transformer, dims), history=self.history_at(transformer.config, dims))

    # --- the pipeline --------------------------------------------------------------------------------------------

    def refuses_call(self, pipe: Any, call: Mapping[str, Any]) -> str | None:
        """Why a call of the pipeline cannot be followed."""
        return None

    def one_video(self, pipe: Any, call: Mapping[str, Any]) -> bool:
        """Whether a call of the pipeline makes one video at a time: rows of a batch are begun one by one, and those of a replay
        run one after the other."""
        return False

    @staticmethod
    def expert(pipe: Any) -> Transformer:
        """A transformer of the pipeline, the first that it has: of two experts either may be left out."""
        return next(module for name in EXPERTS if (module := getattr(pipe, name, None)) is not None)

    def is_step(self, scheduler: Any, arguments: Mapping[str, Any]) -> bool:
        """Whether a call of the scheduler's ``step``, by its arguments, is the one that ends a denoising step."""
        return True

    def channels(self, config: Any, prepared: int) -> int:
        """Channels that are denoised, the first of those that ``prepare_latents`` returned; the others are conditions."""
        return prepared

    def given(self, config: Any, latents: Tensor, prepared: tuple[Any, ...]) -> Tensor:
        """Latents ``[batch, channel, frame, row, col]`` whose first frames stay, where the scheduler sees only later ones.

        ``latents`` are those that the loop starts from, ``prepared`` all that ``prepare_latents`` returned.
        """
        return latents

    def fixed(self, prepared: tuple[Any, ...]) -> int:
        """How many of the first frames of :meth:`given` stay although the scheduler moves them: the pipeline puts them in again
        before each call and at the end."""
        return 0

    def returned(self, pipe: Any, latents: Tensor) -> Tensor:
        """What the pipeline returns for its final latents: where it scales them, a new tensor."""
        return latents

    def unlike_video(self, config: Any) -> str | None:
        """Why the frames of a shown video are not those of a run's latents; None where each of them lies in one."""
        return None

    def decode(self, pipe: Any, latents: Tensor) -> Tensor:
        """Pixels of latents, see :mod:`cos_interp.interp.families.decoding`; here as for the Wan VAE."""
        return decoding.by_statistics(pipe, latents)

    # --- what follows from the above -----------------------------------------------------------------------------

    def blocks(self, transformer: Transformer) -> list[tuple[str, Block]]:
        """Path and sites of every block, in order of execution."""
        check_stacks(self.family, transformer, (stack.attribute for stack in self.stacks))
        each = [
            [(f"{stack.attribute}.{i}", stack.sites) for i in range(len(getattr(transformer, stack.attribute)))]
            for stack in self.stacks
        ]
        order: Iterable[Iterable[tuple[str, Block]]] = zip(*each, strict=True) if self.interleaved else each
        return [block for some in order for block in some]

    def points(self, transformer: Transformer) -> dict[str, Point]:
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

    def grid(self, transformer: Transformer, dims: Dims) -> TokenGrid:
        """The token grid of a latent of ``(frames, rows, columns)``; a last incomplete patch of frames counts."""
        frames, rows, cols = self.patch(transformer.config)
        return TokenGrid(-(-dims[0] // frames), dims[1] // rows, dims[2] // cols)

    def call_grid(self, transformer: Transformer, call: Mapping[str, Any]) -> TokenGrid:
        """The token grid of a transformer call, with the rows of its batch and the tokens before the video's."""
        history = self.history(transformer.config, call)
        return replace(self.grid(transformer, self.dims(call)), batch=call["hidden_states"].shape[0], history=history)

    def dims(self, call: Mapping[str, Any]) -> Dims:
        """Latent frames, rows and columns of a transformer call."""
        return self.layout.dims(call)

    def width(self, transformer: Transformer) -> tuple[int, int]:
        """``d_model`` and the number of heads."""
        return self.sizes(transformer.config)


def _fields(config: Any) -> str:
    return ", ".join(name for name in config if not name.startswith("_")) or "nothing"
