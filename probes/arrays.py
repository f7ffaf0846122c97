"""What people give as rows: tensors of every kind, names, lists. As arrays, checked, with copies of a clip found by content."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from cos_interp.interp.scalars import lacking
from cos_interp.probes.errors import ProbeError

SMALLEST, LARGEST = 1e-150, 1e150  # beyond, sums of squares of float64 vanish or overflow


def plain(values: Any) -> Any:
    """A tensor, in whatever type, on whatever device and in whatever graph, as an array; anything else as it is."""
    if isinstance(values, list | tuple) and values and all(hasattr(value, "detach") for value in values):
        return np.stack([plain(value) for value in values])
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        raise ProbeError(f"{int(np.ma.getmaskarray(values).sum())} masked values were given: leave these rows out")
    if not hasattr(values, "detach"):
        return values
    if kind := lacking(values):
        raise ProbeError(f"a {kind} tensor ({values.layout}) was given: give an ordinary one, as .to_dense() makes")
    values = values.detach().cpu()
    return (values.float() if values.is_floating_point() and values.element_size() < 4 else values).numpy()


def named(labels: Any) -> Any:
    """Labels, or groups, as they were given. ProbeError where one is missing, or some are texts and others are not: as an array
    all would be texts."""
    if getattr(labels, "ndim", 1) != 1 or np.asarray(labels).dtype.kind not in "OUS":
        return labels
    each = list(labels) if isinstance(labels, list | tuple) or hasattr(labels, "ndim") else []
    if missing := [row for row, label in enumerate(each) if label is None or label != label]:
        raise ProbeError(f"{len(missing)} of {len(each)} labels are missing (first: row {missing[0]}): leave these rows out")
    if 0 < sum(isinstance(label, str) for label in each) < len(each):
        raise ProbeError("some labels are texts and others are not: give all of one type")
    return labels


def checked_groups(groups: Any, rows: int) -> np.ndarray:
    """The clip of every row. ProbeError where there are not as many as rows, or one is missing."""
    found = np.asarray(named(plain(groups)))
    if found.shape != (rows,) or (found.dtype.kind == "f" and not np.isfinite(found).all()):
        raise ProbeError(f"groups of shape {found.shape} for {rows} rows: give the clip of each row, without NaN")
    return found


def matrix(values: Any, what: str = "activations") -> np.ndarray:
    """Finite numbers ``[row, d_model]``, at least one. ProbeError for anything else."""
    try:
        found = np.asarray(plain(values))
    except ValueError as error:  # lists of unlike lengths
        raise ProbeError(f"{what}: lists of unlike lengths were given: give [row, d_model]") from error
    if found.ndim != 2 or not found.size or found.dtype.kind not in "fiub":
        raise ProbeError(f"{what} of shape {found.shape}, {found.dtype}, were given: give numbers [row, d_model]")
    found = found if found.dtype in (np.float32, np.float64) else found.astype(np.float64)
    finite(found, what)
    return in_range(found, what)


def finite(values: np.ndarray, what: str = "activations") -> None:
    """ProbeError where a row ``[row, d_model]`` holds NaN or inf."""
    bad = ~np.isfinite(values).all(1)
    if bad.any():
        raise ProbeError(
            f"{what} hold NaN or inf in {bad.sum()} of {len(values)} rows (first: row {int(np.argmax(bad))}): the run "
            "overflowed or a hook wrote bad values; leave these clips out or run the model in a wider dtype"
        )


def in_range(values: np.ndarray, what: str = "activations") -> np.ndarray:
    """The values ``[row, ...]`` as they are. ProbeError where their squares, of which a fit is made, overflow or vanish."""
    if values.dtype.kind != "f" or not values.size or values.dtype.itemsize < 8:
        return values  # float32 is made float64 before it is squared
    largest, spread = float(np.abs(values).max()), np.atleast_1d(np.ptp(values / 2, axis=0))
    moves = spread[spread > 0]
    if largest > LARGEST or (moves.size and moves.min() < SMALLEST):
        found = f"as large as {largest:.0e}" if largest > LARGEST else f"that differ by {2 * float(moves.min()):.0e} only"
        raise ProbeError(f"{what} hold values {found}, whose squares float64 does not hold: give them in another unit")
    return values


def distinct(X: np.ndarray, y: np.ndarray, clip: np.ndarray) -> np.ndarray:
    """Numbers of the clips ``[row]``, one number for clips of which one holds nothing but rows (``X [row, d_model]`` with ``y``)
    of the other: copies under other names, or parts of them.

    >>> distinct(np.array([[1.0], [2.0], [1.0], [3.0]]), np.zeros(4), np.array(["a", "a", "copy", "b"])).tolist()
    [0, 0, 0, 1]
    """
    places: dict[bytes, int] = {}
    X = np.ascontiguousarray(X) + 0.0  # -0.0 is 0.0
    digest = lambda x, label: hashlib.sha256(x.tobytes() + np.asarray(label).tobytes()).digest()
    content = [places.setdefault(digest(x, label), len(places)) for x, label in zip(X, y, strict=True)]
    names, number = np.unique(clip, return_inverse=True)
    holds = csr_array((np.ones(len(X)), (number, content)), shape=(len(names), len(places)))
    holds.sum_duplicates()
    holds.data[:] = 1
    shared, size = (holds @ holds.T).tocoo(), holds.sum(1)
    same = shared.data == np.minimum(size[shared.coords[0]], size[shared.coords[1]])
    joined = csr_array((same.astype(float), shared.coords), shape=shared.shape)
    joined.eliminate_zeros()
    return connected_components(joined, directed=False)[1][number]
