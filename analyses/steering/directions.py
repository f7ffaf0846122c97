"""Directions of differences: short pure functions on tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cos_interp.tasks import Item


def roles(target: Item, donor: Item) -> Tensor:
    """Which way the answer goes in each cell ``[row, col]``: 1 where only the donor's answer changes the first frame by the end,
    -1 where only the target's does, else 0."""
    changed = [item.cells[-1] != item.cells[0] for item in (target, donor)]
    return torch.from_numpy(changed[1].astype(np.float32) - changed[0].astype(np.float32))


class Moments:
    """Of vectors ``[n, d]`` that were added: their ``count``, their ``total`` ``[d]`` and ``products`` ``[d, d]``, the sum of
    each times itself. In double precision; all that the mean and the main axes need, in one room however many there were."""

    def __init__(self, width: int):
        self.count, self.total, self.products = 0, torch.zeros(width).double(), torch.zeros(width, width).double()

    def add(self, vectors: Tensor) -> None:
        vectors = vectors.double()
        self.count += len(vectors)
        self.total += vectors.sum(0)
        self.products.addmm_(vectors.T, vectors)

    @classmethod
    def joined(cls, parts: Sequence[Moments]) -> Moments:
        """Of the vectors of all parts."""
        if len(parts) == 1:
            return parts[0]
        out = cls(len(parts[0].total) if parts else 0)
        for one in parts:
            out.count, out.total = out.count + one.count, out.total + one.total
            out.products += one.products
        return out


def mean_direction(differences: Moments) -> Tensor:
    """The mean ``[d]`` of signed differences, donor's minus target's: what steers without a donor."""
    return (differences.total / differences.count).float()


def subspace(differences: Moments, rank: int) -> tuple[Tensor, Tensor]:
    """The first right singular vectors ``[d, rank]`` of differences, not centred, since their mean is the answer; and the share
    of the squared length that each has. No more of them than there are differences."""
    squares, axes = torch.linalg.eigh(differences.products)
    first = slice(0, min(rank, differences.count))
    return axes.flip(1)[:, first].float(), (squares.clamp_min(0) / squares.sum()).flip(0)[first].float()


def foreign(items: Tensor, length: Tensor, chance: torch.Generator) -> Tensor:
    """What two items, drawn from ``[n, d]``, differ by, at a length: a direction in which activations do vary."""
    one, other = items[torch.randperm(len(items), generator=chance)[:2]]
    return (one - other) * (length / (one - other).norm().clamp_min(1e-12))


def random_basis(width: int, rank: int, chance: torch.Generator) -> Tensor:
    """Orthonormal columns ``[width, rank]``, drawn evenly."""
    return torch.linalg.qr(torch.randn(width, rank, generator=chance))[0]


def exchanged(act: Tensor, donor: Tensor, basis: Tensor) -> Tensor:
    """``act [..., d]`` with the donor's part along a basis ``[d, rank]``, all else its own (Geiger et al. 2303.02536).

    >>> exchanged(torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([[1.0], [0.0]])).tolist()
    [[1.0, 0.0]]
    """
    along = basis.to(act)
    return act + ((donor - act) @ along) @ along.T


def exchanged_as_far(act: Tensor, donor: Tensor, basis: Tensor, like: Tensor) -> Tensor:
    """As :func:`exchanged`, and each token moved as far as the exchange along the basis ``like`` would move it."""
    moved, wanted = (((donor - act) @ one.to(act)) @ one.to(act).T for one in (basis, like))
    return act + moved / moved.norm(dim=-1, keepdim=True).clamp_min(1e-12) * wanted.norm(dim=-1, keepdim=True)
