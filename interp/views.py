"""Between a model's own tensors and named axes: pure permutations and reshapes, so that writing back is bit-exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cos_interp.interp.errors import InterpError

GRID = ("frame", "row", "col")
LISTS = ("token", "text", "audio", "history")


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


@dataclass(frozen=True)
class Kind:
    """What a tensor is, by its axes: those of the model's own, and those that users see.

    In ``native`` the video's tokens lie on one axis, ``token``, in the order (frame, row, col), or on the three of
    :data:`GRID`; an axis that both have is the same one. ``varies`` says that models have other forms of it, too.
    """

    native: tuple[str, ...]
    axes: tuple[str, ...]
    varies: bool = False

    @property
    def listed(self) -> int:
        """The axis of the model's own tensor that lists tokens of video, text, audio or history."""
        return next(place for place, axis in enumerate(self.native) if axis in LISTS)

    @property
    def _apart(self) -> tuple[str, ...]:
        return tuple(part for axis in self.native for part in (GRID if axis == "token" else (axis,)))

    def to_axes(self, value: Tensor, grid: TokenGrid) -> Tensor:
        """The model's tensor with the axes that users see (a view)."""
        if "token" in self.native:
            value = value.unflatten(self.listed, grid.shape)
        return value.permute([self._apart.index(axis) for axis in self.axes])

    def from_axes(self, new: Tensor, like: Tensor) -> Tensor:
        """The inverse of :meth:`to_axes`; ``like`` is the model's own tensor."""
        value = new.permute([self.axes.index(axis) for axis in self._apart])
        return value.flatten(self.listed, self.listed + 2) if "token" in self.native else value

    def axes_of(self, value: Tensor) -> tuple[str, ...]:
        """The axes of a value that users see."""
        return self.axes


class Times(Kind):
    """A vector for each row or, where each has a time of its own (TI2V-5B), for each token or frame of a row."""

    def to_axes(self, value: Tensor, grid: TokenGrid) -> Tensor:
        if value.ndim == 2 and grid.batch is not None and len(value) != grid.batch:
            value = value.unflatten(0, (grid.batch, -1))  # some models fold them into the batch axis
        return value.unflatten(1, grid.shape) if value.ndim == 3 and value.shape[1] == grid.tokens else value

    def from_axes(self, new: Tensor, like: Tensor) -> Tensor:
        return new.reshape(like.shape)

    def axes_of(self, value: Tensor) -> tuple[str, ...]:
        return {2: self.axes, 3: ("batch", "frame", "d_model"), 5: ("batch", *GRID, "d_model")}[value.ndim]


def _kind(native: str, axes: str) -> Kind:
    return Kind(tuple(native.split()), tuple(axes.split()))


KINDS: dict[str, Kind] = {
    "tokens": _kind("batch token d_model", "batch frame row col d_model"),
    "embed": _kind("batch d_model frame row col", "batch frame row col d_model"),
    "grid": _kind("batch frame row col d_model", "batch frame row col d_model"),
    "heads": _kind("batch head token d_head", "batch frame row col head d_head"),
    "flat_heads": _kind("batch token d_model", "batch frame row col d_model"),
    "text": _kind("batch text d_model", "batch text d_model"),
    "text_heads": _kind("batch head text d_head", "batch text head d_head"),
    "audio": _kind("batch audio d_model", "batch audio d_model"),
    "audio_heads": _kind("batch head audio d_head", "batch audio head d_head"),
    "history": _kind("batch history d_model", "batch history d_model"),
    "history_heads": _kind("batch head history d_head", "batch history head d_head"),
    "frame_text_heads": _kind("batch frame head text d_head", "batch frame text head d_head"),
    "pattern": _kind("batch head token key", "batch head frame row col key"),
    "text_pattern": _kind("batch head text key", "batch head text key"),
    "audio_pattern": _kind("batch head audio key", "batch head audio key"),
    "vector": Times(("batch", "d_model"), ("batch", "d_model"), varies=True),
    "latent": Kind(("batch", "channel", *GRID), ("batch", "channel", *GRID), varies=True),  # see families.layouts
}
AXES = {name: kind.axes for name, kind in KINDS.items()}


def axes_of(kind: str, value: Tensor) -> tuple[str, ...]:
    """Axis names of a value of a kind."""
    return KINDS[kind].axes_of(value)


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


def _cut(value: Tensor, kind: Kind, grid: TokenGrid, part: str) -> Tensor:
    where = stretch(part, value.shape[kind.listed], grid)
    return value.narrow(kind.listed, where.start, where.stop - where.start)


def take(value: Tensor, kind: str, grid: TokenGrid, part: str | None = None, fold: str | None = None) -> Tensor:
    """The model's tensor as ``AXES[kind]``: unfolded from the batch axis, cut from the shared token axis."""
    what = KINDS[kind]
    value = value if fold is None else unfolded(value, what, grid, fold)
    return what.to_axes(value if part is None else _cut(value, what, grid, part), grid)


def give(value: Tensor, new: Tensor, kind: str, grid: TokenGrid, part: str | None = None, fold: str | None = None) -> Tensor:
    """The inverse of :func:`take`: the model's tensor ``value`` with ``new`` in its place."""
    what = KINDS[kind]
    new = what.from_axes(new, value)
    if part is not None:
        whole = value.clone()
        _cut(whole, what, grid, part).copy_(new)
        new = whole
    return new if fold is None else folded(new, what, grid, fold)


def unfolded(value: Tensor, kind: Kind, grid: TokenGrid, fold: str) -> Tensor:
    """Frames (``spatial``) or positions (``temporal``) moved from the batch axis to that of the tokens, or of the frames."""
    value = value.unflatten(0, (-1, grid.frames if fold == "spatial" else grid.rows * grid.cols))
    if "frame" in kind.native:
        return value.movedim(1, kind.native.index("frame"))
    at = kind.listed
    return value.movedim(1, at if fold == "spatial" else at + 1).flatten(at, at + 1)


def folded(value: Tensor, kind: Kind, grid: TokenGrid, fold: str) -> Tensor:
    """The inverse of :func:`unfolded`."""
    if "frame" in kind.native:
        return value.movedim(kind.native.index("frame"), 1).flatten(0, 1)
    at = kind.listed
    value = value.unflatten(at, (grid.frames, grid.rows * grid.cols))
    return value.movedim(at if fold == "spatial" else at + 1, 1).flatten(0, 1)


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
    return torch.tensor(numbers, device=like.device, dtype=torch.long)


def pixel_to_latent(pixel_frames: int, latent_frames: int) -> np.ndarray:
    """The latent frame of every pixel frame, int ``[pixel frame]``, as causal video autoencoders compress time.

    Latent frame 0 holds pixel frame 0, latent frame i the r pixel frames ``1 + (i - 1) r .. i r``. Where the pixel frames do
    not fill that (16 to 5), or leave some over (14 to 4), r is the whole number nearest to ``(pixel frames - 1) / (latent
    frames - 1)`` that leaves no latent frame empty, and the last latent frame holds what is left. Raises InterpError for
    fewer pixel frames than latent frames.

    >>> pixel_to_latent(9, 5).tolist()
    [0, 1, 1, 2, 2, 3, 3, 4, 4]
    """
    if not 1 <= latent_frames <= pixel_frames:
        raise InterpError(
            f"{pixel_frames} pixel frames cannot lie in {latent_frames} latent frames: every latent frame holds one"
        )
    if latent_frames == 1:
        return np.zeros(pixel_frames, int)
    later, groups = pixel_frames - 1, latent_frames - 1
    size = round(later / groups)
    if size * (groups - 1) >= later:  # nothing would be left for the last one
        size = later // groups
    return np.minimum((np.arange(pixel_frames) + size - 1) // size, groups)
