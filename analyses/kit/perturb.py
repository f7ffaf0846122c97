"""Ways to disturb a noisy latent (CoS section 3.2): pure functions of ``x_t`` and its noise level.

The paper writes ``x <- N(0, I)``. Taken literally that leaves noise of size 1 at a small sigma, which no later step can
remove; ``renoise`` instead keeps the clean estimate and draws its noise again, so that the model meets a state of the kind it
was trained on. Both are here, with additive noise and a shuffle of the tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cos_interp.analyses.kit.kinds import Mode
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.interp.selecting import numbers

ROTATING: tuple[Mode, ...] = ("replace", "renoise")  # a dose turns the old into the new at constant size; 1 is all new
Grid = tuple[int, int, int]  # frames, rows, cols


def rotate(old: Tensor, new: Tensor, dose: float) -> Tensor:
    """``sqrt(1 - dose^2) old + dose new``: of unit variance where both are and are independent."""
    return math.sqrt(1 - dose**2) * old + dose * new


def implied_noise(x_t: Tensor, x0hat: Tensor, sigma: float) -> Tensor:
    """The noise that a flow-matching state holds besides its clean estimate: ``(x_t - (1 - sigma) x0hat) / sigma``."""
    return (x_t - (1 - sigma) * x0hat) / sigma


def renoise(x_t: Tensor, x0hat: Tensor, sigma: float, noise: Tensor, dose: float = 1.0) -> Tensor:
    """``(1 - sigma) x0hat + sigma eps'``, the noise turned towards a fresh one by the dose. Unchanged at sigma 0."""
    if sigma == 0:
        return x_t
    fresh = noise if dose == 1 else rotate(implied_noise(x_t, x0hat, sigma), noise, dose)
    return (1 - sigma) * x0hat + sigma * fresh


def erase(x_t: Tensor, x0hat: Tensor, sigma: float, noise: Tensor, dose: float = 1.0) -> Tensor:
    """Noise in place of content at the same sigma: the clean estimate fades to zero and the noise is drawn again.

    At dose 1 this is ``sigma eps``, the noisy version of an empty latent.
    """
    return renoise(x_t, x0hat, sigma, noise, dose) - dose * (1 - sigma) * x0hat if sigma else (1 - dose) * x_t


def shuffle(x_t: Tensor, order: Tensor, share: float, mask: Tensor, patch: Grid = (1, 1, 1)) -> Tensor:
    """Permute a share of the tokens of ``mask`` among themselves; ``order``: one random number a latent cell picks both.

    ``x_t [1, channel, frame, row, col]``, ``order`` and ``mask [frame, row, col]``. A token is a patch of latent cells and
    is moved as a whole, if all its cells are in the mask.
    """
    tokens = _tokens(x_t[0], patch)  # [token, cell values]
    inside = _tokens(mask[None], patch).all(1).nonzero()[:, 0]
    key = _tokens(order[None], patch)[inside, 0]
    first = inside[key.argsort()][: max(2, round(share * len(inside)))]
    out = tokens.clone()
    out[first] = tokens[first.roll(1)]
    return _untokens(out, tuple(x_t.shape[1:]), patch)[None]


def _tokens(latent: Tensor, patch: Grid) -> Tensor:
    channels, *size = latent.shape
    split = [part for n, p in zip(size, patch, strict=True) for part in (n // p, p)]
    return latent.reshape(channels, *split).permute(1, 3, 5, 0, 2, 4, 6).flatten(3).flatten(0, 2)


def _untokens(tokens: Tensor, shape: tuple[int, ...], patch: Grid) -> Tensor:
    channels, *size = shape
    counts = [n // p for n, p in zip(size, patch, strict=True)]
    return tokens.reshape(*counts, channels, *patch).permute(3, 0, 4, 1, 5, 2, 6).reshape(shape)


def disturb(
    x_t: Tensor, x0hat: Tensor, sigma: float, mode: Mode, dose: float, noise: Tensor,
    mask: Tensor | None = None, patch: Grid = (1, 1, 1),
) -> Tensor:  # fmt: skip
    """``x_t [1, channel, frame, row, col]`` disturbed where ``mask [frame, row, col]`` is true (None: everywhere).

    replace: ``noise``; add: ``x_t + dose sigma noise``; renoise: :func:`renoise`; shuffle: a share ``dose`` of the tokens
    changes places. For replace and renoise the dose is at most 1 and turns the old noise into the new one.
    """
    where = torch.ones(x_t.shape[2:], dtype=torch.bool) if mask is None else mask
    where = where.to(x_t.device)
    if mode == "shuffle":
        return shuffle(x_t, noise[0, 0], dose, where, patch)
    if mode == "replace":
        new = rotate(x_t, noise, dose)
    elif mode == "add":
        new = x_t + dose * sigma * noise
    else:
        new = renoise(x_t, x0hat, sigma, noise, dose)
    return torch.where(where, new, x_t)


def dose_for_share(mode: Mode, dose: float, share: float) -> float:
    """The dose that disturbs with ``share`` of the expected energy ``|x' - x|^2`` of ``dose``.

    Added noise: energy ~ dose^2. Turned noise of unit variance: ``2 - 2 sqrt(1 - dose^2)``. Shuffle: ~ number of tokens.
    """
    if mode == "add":
        return dose * math.sqrt(share)
    if mode == "shuffle":
        return dose * share
    return math.sqrt(1 - (1 - share * (1 - math.sqrt(1 - dose**2))) ** 2)


def energy(before: Tensor, after: Tensor) -> float:
    """Mean square of a displacement, per element of the latent."""
    return float((after - before).square().mean())


def noise_like(x_t: Tensor, *seeds: int) -> Tensor:
    """Unit normal noise of the shape of ``x_t``, from numbers that name its place; the same on every device."""
    generator = torch.Generator("cpu").manual_seed(seed_for("disturbance", *seeds))
    return torch.randn(x_t.shape, generator=generator).to(x_t)


def region(shape: Grid, frames: tuple[int, ...] | None = None, rows: str | None = None, cols: str | None = None) -> Tensor:
    """Bool ``[frame, row, col]``, true inside; rows and cols as in addresses (``1``, ``0:2``, ``[0,3]``)."""
    mask = torch.zeros(shape, dtype=torch.bool)
    picked = [numbers(frames, shape[0], "frame")]
    for axis, text, size in (("row", rows, shape[1]), ("col", cols, shape[2])):
        picked.append(numbers(text, size, axis))
    mask[torch.meshgrid(*[torch.tensor(list(p)) for p in picked], indexing="ij")] = True
    return mask
