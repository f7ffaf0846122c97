"""Directions of differences: short pure functions on tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cos_interp.tasks import Item


def roles(target: Item, donor: Item) -> Tensor:
    """Which way the answer goes in each cell ``[row, col]``: 1 where only the donor's answer changes the first frame by the end,
    -1 where only the target's does, else 0."""
    changed = [item.cells[-1] != item.cells[0] for item in (target, donor)]
    return torch.from_numpy(changed[1].astype(np.float32) - changed[0].astype(np.float32))


def mean_direction(differences: Tensor) -> Tensor:
    """The mean ``[d]`` of signed differences ``[n, d]``, donor's minus target's: what steers without a donor."""
    return differences.mean(0)


def subspace(differences: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The first right singular vectors ``[d, rank]`` of differences ``[n, d]``, not centred, since their mean is the answer; and
    the share of the squared length that each has."""
    _, sizes, rows = torch.linalg.svd(differences.double(), full_matrices=False)
    return rows[:rank].T.float(), (sizes.square() / sizes.square().sum())[:rank].float()


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
