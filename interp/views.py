"""Between a model's own tensors and named axes: pure permutations and reshapes, so that writing back is bit-exact."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from interp.address import NUMERIC, Address, chosen

GRID = ("frame", "row", "col")
AXES: dict[str, tuple[str, ...]] = {
    "tokens": ("batch", *GRID, "d_model"),
    "embed": ("batch", *GRID, "d_model"),
    "heads": ("batch", *GRID, "head", "d_head"),
    "text_heads": ("batch", "text", "head", "d_head"),
    "pattern": ("batch", "head", *GRID, "key"),
    "vector": ("batch", "d_model"),
    "latent": ("batch", "channel", *GRID),
}


@dataclass(frozen=True)
class TokenGrid:
    """Tokens of one call, in row-major order of (frame, row, col)."""

    frames: int
    rows: int
    cols: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.frames, self.rows, self.cols

    @property
    def tokens(self) -> int:
        return self.frames * self.rows * self.cols


def axes_of(kind: str, value: Tensor) -> tuple[str, ...]:
    """Axis names of a value; a per-token time embedding (TI2V-5B) has the axes of tokens."""
    return AXES["tokens"] if kind == "vector" and value.ndim == 5 else AXES[kind]


def to_axes(value: Tensor, kind: str, grid: TokenGrid) -> Tensor:
    """The model's tensor as ``AXES[kind]`` (a view)."""
    if kind == "tokens" or (kind == "vector" and value.ndim == 3):
        return value.unflatten(1, grid.shape)
    if kind == "embed":
        return value.movedim(1, -1)
    if kind == "heads":
        return value.transpose(1, 2).unflatten(1, grid.shape)
    if kind == "text_heads":
        return value.transpose(1, 2)
    if kind == "pattern":
        return value.unflatten(2, grid.shape)
    return value


def from_axes(value: Tensor, kind: str) -> Tensor:
    """The inverse of :func:`to_axes`."""
    if kind == "tokens" or (kind == "vector" and value.ndim == 5):
        return value.flatten(1, 3)
    if kind == "embed":
        return value.movedim(-1, 1)
    if kind == "heads":
        return value.flatten(1, 3).transpose(1, 2)
    if kind == "text_heads":
        return value.transpose(1, 2)
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
