"""Numbers of attention patterns: pure functions on probabilities, away from models and files.

A pattern is ``[..., query, key]``, each row a distribution over keys. Tokens are flat, in the order of (frame, row, col).
"""

from __future__ import annotations

import torch
from torch import Tensor

Grid = tuple[int, int, int]  # latent frames, rows, columns of tokens


def softmax_scores(q: Tensor, k: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt d)``, ``[head, query, key]``, of q ``[head, query, d]`` and k ``[head, key, d]``, in float32."""
    return (q.float() @ k.float().transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)


def frame_of(grid: Grid) -> Tensor:
    """Latent frame of every token, int ``[token]``."""
    frames, rows, cols = grid
    return torch.arange(frames).repeat_interleave(rows * cols)


def place_of(grid: Grid) -> Tensor:
    """Row and column of every token, int ``[token, 2]``."""
    frames, rows, cols = grid
    cells = torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).reshape(-1, 2)
    return cells.repeat(frames, 1)


def mass(pattern: Tensor, keys: Tensor) -> Tensor:
    """Share of each query's attention that some keys get, ``[..., query]``; ``keys`` is bool ``[key]``."""
    return pattern[..., keys].sum(-1)


def entropy_bits(pattern: Tensor) -> Tensor:
    """Shannon entropy of each query's attention in bits, ``[..., query]``: 0 for one key, log2(n) for n equal keys."""
    return -(pattern * pattern.clamp_min(1e-30).log2()).sum(-1)


def locality(pattern: Tensor, queries: Tensor, grid: Grid) -> Tensor:
    """Mean Euclidean distance in cells, within the picture, from a query to what it attends to, ``[..., query]``.

    ``queries`` are the token numbers of the pattern's queries. The time axis does not count: see :func:`frame_distance`.
    """
    places = place_of(grid).to(pattern.device).float()
    distances = torch.cdist(places[queries], places)
    return (pattern * distances).sum(-1)


def frame_distance(pattern: Tensor, queries: Tensor, grid: Grid) -> Tensor:
    """Mean distance in latent frames from a query to what it attends to, ``[..., query]``."""
    frames = frame_of(grid).to(pattern.device).float()
    return (pattern * (frames[queries, None] - frames[None]).abs()).sum(-1)


def own_frame_share(pattern: Tensor, queries: Tensor, grid: Grid) -> Tensor:
    """Share of attention within the query's own latent frame, ``[..., query]``; 1 / frames for even attention."""
    frames = frame_of(grid).to(pattern.device)
    return (pattern * (frames[queries, None] == frames[None])).sum(-1)


def sink_share(pattern: Tensor) -> Tensor:
    """Mean attention that the most attended key gets from all queries, ``[...]``: 1 / keys for even attention, 1 for a sink."""
    return pattern.mean(-2).amax(-1)


def unseen(keys: Tensor, grid: Grid) -> list[tuple[Tensor, Tensor]]:
    """What a knock-out of ``keys`` (bool ``[token]``) cuts: queries, and the keys of other frames among these that they do not
    see, both bool ``[token]``. Queries that miss the same keys are in one pair."""
    frames, made = frame_of(grid).to(keys.device), list[tuple[Tensor, Tensor]]()
    for frame in range(grid[0]):
        queries, cut = frames == frame, keys & (frames != frame)
        same = next((place for place, (_, other) in enumerate(made) if torch.equal(other, cut)), None)
        if same is not None:
            made[same] = (made[same][0] | queries, cut)
        elif bool(cut.any()):
            made.append((queries, cut))
    return made
