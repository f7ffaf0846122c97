"""Between a model's own tensors and named axes: pure permutations and reshapes, so that writing back is bit-exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cos_interp.interp.address import NUMERIC, Address, chosen

GRID = ("frame", "row", "col")
AXES: dict[str, tuple[str, ...]] = {
    "tokens": ("batch", *GRID, "d_model"),
    "embed": ("batch", *GRID, "d_model"),
    "grid": ("batch", *GRID, "d_model"),
    "frame_embed": ("batch", *GRID, "d_model"),
    "heads": ("batch", *GRID, "head", "d_head"),
    "flat_heads": ("batch", *GRID, "d_model"),
    "text": ("batch", "text", "d_model"),
    "text_heads": ("batch", "text", "head", "d_head"),
    "audio": ("batch", "audio", "d_model"),
    "audio_heads": ("batch", "audio", "head", "d_head"),
    "history": ("batch", "history", "d_model"),
    "history_heads": ("batch", "history", "head", "d_head"),
    "frame_text_heads": ("batch", "frame", "text", "head", "d_head"),
    "pattern": ("batch", "head", *GRID, "key"),
    "text_pattern": ("batch", "head", "text", "key"),
    "audio_pattern": ("batch", "head", "audio", "key"),
    "vector": ("batch", "d_model"),
    "latent": ("batch", "channel", *GRID),
}
LISTED_HEADS = ("text_heads", "audio_heads", "history_heads")  # heads of tokens that lie in no grid
_TOKEN_AXIS = dict.fromkeys(("heads", *LISTED_HEADS, "frame_text_heads", "pattern", "text_pattern"), 2)  # else 1


@dataclass(frozen=True)
class TokenGrid:
    """Tokens of one call, in row-major order of (frame, row, col)."""

    frames: int
    rows: int
    cols: int
    batch: int | None = None  # rows of the call
    history: int = 0  # tokens of earlier frames that lie before these (FramePack)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.frames, self.rows, self.cols

    @property
    def tokens(self) -> int:
        return self.frames * self.rows * self.cols


def axes_of(kind: str, value: Tensor) -> tuple[str, ...]:
    """Axis names of a value; a time embedding has those of tokens or frames where each has a time of its own (TI2V-5B)."""
    if kind == "vector" and value.ndim > 2:
        return AXES["tokens"] if value.ndim == 5 else ("batch", "frame", "d_model")
    return AXES[kind]


def stretch(part: str, length: int, grid: TokenGrid) -> slice:
    """Where video, text or history lie on a token axis that they share: see ``Site.part``."""
    end = grid.history + grid.tokens
    return {
        "history": slice(0, grid.history),
        "lead": slice(grid.history, end),
        "after": slice(end, length),
        "before": slice(0, length - grid.tokens),
        "trail": slice(length - grid.tokens, length),
    }[part]


def take(value: Tensor, kind: str, grid: TokenGrid, part: str | None = None, fold: str | None = None) -> Tensor:
    """The model's tensor as ``AXES[kind]``: unfolded from the batch axis, cut from the shared token axis."""
    if fold is not None:
        value = unfolded(value, kind, grid, fold)
    if part is not None:
        axis = _TOKEN_AXIS.get(kind, 1)
        where = stretch(part, value.shape[axis], grid)
        value = value.narrow(axis, where.start, where.stop - where.start)
    return to_axes(value, kind, grid)


def give(value: Tensor, new: Tensor, kind: str, grid: TokenGrid, part: str | None = None, fold: str | None = None) -> Tensor:
    """The inverse of :func:`take`: the model's tensor ``value`` with ``new`` in its place."""
    new = new.reshape(value.shape) if kind == "vector" else from_axes(new, kind)
    if part is not None:
        axis = _TOKEN_AXIS.get(kind, 1)
        where = stretch(part, value.shape[axis], grid)
        whole = value.clone()
        whole.narrow(axis, where.start, where.stop - where.start).copy_(new)
        new = whole
    return new if fold is None else folded(new, kind, grid, fold)


def unfolded(value: Tensor, kind: str, grid: TokenGrid, fold: str) -> Tensor:
    """Frames (``spatial``) or positions (``temporal``) moved from the batch axis to the token axis."""
    axis = _TOKEN_AXIS.get(kind, 1)
    outer = grid.frames if fold == "spatial" else grid.rows * grid.cols
    value = value.unflatten(0, (-1, outer))
    if kind in ("frame_text_heads", "frame_embed"):  # every frame has its own: the axis stays
        return value
    value = value.movedim(1, axis) if fold == "spatial" else value.movedim(1, axis + 1)
    return value.flatten(axis, axis + 1)


def folded(value: Tensor, kind: str, grid: TokenGrid, fold: str) -> Tensor:
    """The inverse of :func:`unfolded`."""
    axis = _TOKEN_AXIS.get(kind, 1)
    if kind in ("frame_text_heads", "frame_embed"):
        return value.flatten(0, 1)
    value = value.unflatten(axis, (grid.frames, grid.rows * grid.cols))
    value = value.movedim(axis, 1) if fold == "spatial" else value.movedim(axis + 1, 1)
    return value.flatten(0, 1)


def to_axes(value: Tensor, kind: str, grid: TokenGrid) -> Tensor:
    """The model's tensor as ``AXES[kind]`` (a view)."""
    if kind == "vector":
        return _times(value, grid)
    if kind in ("tokens", "flat_heads"):
        return value.unflatten(1, grid.shape)
    if kind == "embed":
        return value.movedim(1, -1)
    if kind == "frame_embed":
        return value.movedim(2, -1)
    if kind == "heads":
        return value.transpose(1, 2).unflatten(1, grid.shape)
    if kind in LISTED_HEADS:
        return value.transpose(1, 2)
    if kind == "frame_text_heads":
        return value.transpose(2, 3)
    if kind == "pattern":
        return value.unflatten(2, grid.shape)
    return value


def _times(value: Tensor, grid: TokenGrid) -> Tensor:
    """One time for each row, or for each token or frame of a row, which some models fold into the batch axis."""
    if value.ndim == 2 and grid.batch is not None and len(value) != grid.batch:
        value = value.unflatten(0, (grid.batch, -1))
    return value.unflatten(1, grid.shape) if value.ndim == 3 and value.shape[1] == grid.tokens else value


def from_axes(value: Tensor, kind: str) -> Tensor:
    """The inverse of :func:`to_axes`."""
    if kind in ("tokens", "flat_heads"):
        return value.flatten(1, 3)
    if kind == "embed":
        return value.movedim(-1, 1)
    if kind == "frame_embed":
        return value.movedim(-1, 2)
    if kind == "heads":
        return value.flatten(1, 3).transpose(1, 2)
    if kind in LISTED_HEADS:
        return value.transpose(1, 2)
    if kind == "frame_text_heads":
        return value.transpose(2, 3)
    if kind == "pattern":
        return value.flatten(2, 4)
    return value


def region(address: Address, axes: tuple[str, ...], shape: tuple[int, ...]) -> tuple[slice | list[int], ...] | None:
    """Where in a tensor with these axes an address points; None when it means everything.

    The first list may be used for indexing directly; more than one needs :func:`select`.
    """
    out: list[slice | list[int]] = []
    for axis, size in zip(axes, shape, strict=True):
        wanted = getattr(address, axis) if axis in NUMERIC else None
        out.append(slice(None) if wanted is None else chosen(wanted, size))
    return None if all(isinstance(part, slice) for part in out) else tuple(out)


def select(value: Tensor, where: tuple[slice | list[int], ...] | None) -> Tensor:
    """A copy of the region, all axes kept."""
    if where is None:
        return value.clone()
    for axis, part in enumerate(where):
        if not isinstance(part, slice):
            value = value.index_select(axis, _index(part, value))
    return value.clone() if all(isinstance(p, slice) for p in where) else value


def put(value: Tensor, where: tuple[slice | list[int], ...] | None, new: Tensor) -> Tensor:
    """A copy of ``value`` with the region replaced."""
    if where is None:
        return new
    out = value.clone()
    mesh = []
    axes = len(where)
    for axis, part in enumerate(where):
        numbers = list(range(value.shape[axis])) if isinstance(part, slice) else part
        mesh.append(_index(numbers, value).view([-1 if a == axis else 1 for a in range(axes)]))
    out[tuple(mesh)] = new
    return out


def _index(numbers: list[int], like: Tensor) -> Tensor:
    import torch

    return torch.tensor(numbers, device=like.device, dtype=torch.long)


def pixel_to_latent(pixel_frames: int, latent_frames: int) -> np.ndarray:
    """The latent frame of every pixel frame: the first stands alone, the others are shared out in order.

    >>> pixel_to_latent(9, 5).tolist()
    [0, 1, 1, 2, 2, 3, 3, 4, 4]
    """
    if latent_frames == 1 or pixel_frames == 1:
        return np.zeros(pixel_frames, int)
    ratio = (pixel_frames - 1) / (latent_frames - 1)
    return np.minimum(np.ceil(np.arange(pixel_frames) / ratio).astype(int), latent_frames - 1)
