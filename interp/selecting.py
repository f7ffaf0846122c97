"""What is asked for against what there is: steps, layers, heads, tokens. Nothing is left out without a word.

A selection that names nothing, or something that is not there, is an InterpError that says what was asked, what there is, and
what to write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cos_interp.interp.address import NUMERIC, Address, as_index, shown
from cos_interp.interp.errors import InterpError
from cos_interp.interp.scalars import lacking
from cos_interp.interp.scalars import whole as whole  # for those who select
from cos_interp.interp.views import GRID

HOW_TOKENS = (
    "give a bool mask [frame, row, col] (tensor, array or lists), cells [(frame, row, col), ...], or a dictionary like "
    "{'frame': [0, 1], 'row': slice(2, 4)}"
)


def numbers(asked: Any, size: int, what: str) -> tuple[int, ...]:
    """The numbers of a selection below ``size``, each once, in the order asked.

    Whole numbers may be Python's, numpy's or torch's; negative ones count from the end; None and ``"all"`` are all. ``what``
    names the axis in errors ("step").
    """
    index = as_index(asked, what)
    if index is None:
        return tuple(range(size))
    found = _of_slice(index, size, what) if isinstance(index, slice) else index
    there = f"{what}s 0 to {size - 1}" if size else f"no {what}"
    if not found:
        raise InterpError(f"{what}={shown(asked)} names nothing; there are {there}")
    wrong = [n for n in found if not -size <= n < size]
    if wrong:
        raise InterpError(f"{what}={shown(asked)}: there is no {what} {wrong[0]}; there are {there}")
    return tuple(dict.fromkeys(n + size if n < 0 else n for n in found))


def words(asked: Any, what: str, there: Sequence[str] | str) -> tuple[str, ...]:
    """The words of a selection, one or several. InterpError for none, and for what is no word or not ``there``.

    Where ``there`` is a text, any word will do, and the text says in the error what to give.
    """
    how = there if isinstance(there, str) else f"one or several of {', '.join(there)}"
    several = isinstance(asked, Iterable) and not isinstance(asked, str | bytes | Mapping)
    found = tuple(asked) if several else (asked,)
    if not found:
        raise InterpError(f"{what}={shown(asked)} names nothing: give {how}")
    for word in found:
        if not isinstance(word, str) or not (isinstance(there, str) or word in there):
            raise InterpError(f"{what}={shown(asked)}: {word!r} is not there: give {how}")
    return found


def known_layers(asked: Any, layers: int) -> tuple[int, ...]:
    """The layers asked for, all for None. InterpError for one that a model of so many layers does not have."""
    return numbers(asked, layers, "layer")


def _of_slice(asked: slice, size: int, what: str) -> tuple[int, ...]:
    """A slice names what it says and no less: an end beyond the axis is an error, an open end is not."""
    start, stop = asked.start, asked.stop
    if (start is not None and not -size <= start < size) or (stop is not None and not -size <= stop <= size):
        raise InterpError(f"{what}={shown(asked)} reaches beyond what there is: {what}s 0 to {size - 1}")
    return tuple(range(size))[asked]


# --- tokens ----------------------------------------------------------------------------------------------------------


def token_mask(asked: Any, shape: tuple[int, int, int]) -> Tensor | None:
    """A selection of tokens as a bool mask ``[frame, row, col]`` over a token grid; None, which is all, stays None.

    Masks may be tensors, arrays or nested lists; cells are triples (frame, row, col); a dictionary selects along axes.
    """
    if asked is None or (isinstance(asked, str) and asked == "all"):
        return None
    mask = _along_axes(asked, shape) if isinstance(asked, Mapping) else _of_array(asked, shape)
    if not mask.any():
        raise InterpError(f"tokens={shown(asked)} names no token of the grid {shape} (frame, row, col): {HOW_TOKENS}")
    return mask


def _along_axes(asked: Mapping[str, Any], shape: tuple[int, int, int]) -> Tensor:
    if not asked or (unknown := [key for key in asked if key not in GRID]):
        found = f"there is no axis {unknown[0]!r}" if asked else "{} names no axis"
        raise InterpError(f"tokens: {found}; the axes are {', '.join(GRID)}")
    mask = torch.ones(shape, dtype=torch.bool)
    for axis, name in enumerate(GRID):
        if name in asked:
            along = torch.zeros(shape[axis], dtype=torch.bool)
            along[list(numbers(asked[name], shape[axis], name))] = True
            mask &= along.view([-1 if a == axis else 1 for a in range(3)])
    return mask


def _of_array(asked: Any, shape: tuple[int, int, int]) -> Tensor:
    value = as_array(asked)
    if value.dtype == bool and value.shape == shape:
        return torch.from_numpy(value.copy())
    if np.issubdtype(value.dtype, np.integer) and value.ndim == 2 and value.shape[1] == 3:
        return _of_cells(value, shape)
    raise InterpError(f"tokens: got {value.dtype} {value.shape}, and the token grid is {shape}: {HOW_TOKENS}")


def as_array(asked: Any) -> np.ndarray:
    """A mask, weights or cells of tokens as an array. InterpError for what is none, holds nothing, or has no numbers."""
    if isinstance(asked, Tensor) and (kind := lacking(asked)):
        raise InterpError(f"tokens: a {kind} tensor {list(asked.shape)}: {HOW_TOKENS}")
    asked = asked.detach().cpu() if isinstance(asked, Tensor) else list(asked) if isinstance(asked, (set, frozenset)) else asked
    try:
        value = np.asarray(asked)
    except (ValueError, TypeError, RuntimeError) as error:  # lists of unlike lengths, tensors that numpy has no numbers for
        raise InterpError(f"tokens={shown(asked)}: {HOW_TOKENS}") from error
    if not value.size:
        raise InterpError(f"tokens={shown(asked)} names no token: {HOW_TOKENS}")
    return value


def _of_cells(cells: np.ndarray, shape: tuple[int, int, int]) -> Tensor:
    outside = (cells < 0) | (cells >= np.array(shape))
    if outside.any():
        cell = tuple(int(n) for n in cells[outside.any(1)][0])
        raise InterpError(f"tokens: there is no cell {cell} in the token grid {shape} (frame, row, col), counted from 0")
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[tuple(torch.from_numpy(cells.astype(np.int64)).T)] = True
    return mask


def spread(mask: Tensor, sizes: tuple[int, int, int]) -> Tensor:
    """A mask over tokens as one over ``sizes`` latent cells: each token stands for the cells that it is made of.

    A last token along frames may have fewer cells than the others.
    """
    for axis, size in enumerate(sizes):
        if mask.shape[axis] != size:
            mask = mask.repeat_interleave(-(-size // mask.shape[axis]), axis).narrow(axis, 0, size)
    return mask


# --- addresses -------------------------------------------------------------------------------------------------------


def region(address: Address, axes: tuple[str, ...], shape: tuple[int, ...]) -> tuple[slice | list[int], ...] | None:
    """Where in a tensor with these axes an address points; None when it means everything. InterpError where it points beyond.

    The first list may be used for indexing directly; more than one needs :func:`cos_interp.interp.views.select`.
    """
    out: list[slice | list[int]] = []
    for axis, size in zip(axes, shape, strict=True):
        wanted = getattr(address, axis) if axis in NUMERIC else None
        out.append(slice(None) if wanted is None else list(numbers(wanted, size, axis)))
    return None if all(isinstance(part, slice) for part in out) else tuple(out)
