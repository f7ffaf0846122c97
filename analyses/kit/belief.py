"""What an ideal observer believes of a problem's right answers, and what a clean estimate shows of them. Pure maths.

Candidates are clean latents ``[candidate, ...]``, one for each right answer. A state of flow matching is
``x_t = (1 - sigma) x0 + sigma noise`` (CoS section 3.1, eq. 2), so with every candidate equally likely beforehand the posterior
over them is exact: no model takes part. Schedulers of other kinds have another ``alpha`` in the place of ``1 - sigma``
(:func:`cos_interp.interp.run.prediction.signal`). All is computed in float64.
"""

from __future__ import annotations

import torch
from scipy.optimize import nnls
from torch import Tensor


def weights(x0hat: Tensor, candidates: Tensor) -> Tensor:
    """``w [candidate]`` with sum 1 that minimises ``|x0hat - sum_i w_i candidate_i|``: how an estimate is mixed from candidates.

    Affine: a weight may be negative or above 1, see :func:`clipped`. Among several minima (equal candidates) the one whose
    steps away from the first candidate are smallest.
    """
    rows = _rows(candidates)
    if len(rows) == 1:
        return torch.ones(1, dtype=torch.float64)
    target = _row(x0hat) - rows[0]
    away = (rows[1:] - rows[0]).T
    others = torch.linalg.lstsq(away, target[:, None], driver="gelsd").solution[:, 0]
    return torch.cat([1 - others.sum()[None], others])


def clipped(found: Tensor) -> Tensor:
    """Weights as shares: negative ones 0, the rest scaled to sum 1. The largest of affine weights is always positive.

    >>> clipped(torch.tensor([1.5, -0.5])).tolist()
    [1.0, 0.0]
    """
    positive = found.clamp_min(0)
    return positive / positive.sum()


def shares(x0hat: Tensor, candidates: Tensor) -> Tensor:
    """``w [candidate]``, none negative and with sum 1, that minimises ``|x0hat - sum_i w_i candidate_i|``.

    By the active sets of Lawson and Hanson (1974). Affine :func:`weights` have no one answer where candidates depend on one
    another, like routes that differ in the same two places; these do, as no candidate is a mixture of the others.
    """
    rows = (_rows(candidates) - _row(x0hat)).T
    small = torch.linalg.qr(rows, mode="r").R
    heavy = 1e4 * float(small.norm()) or 1.0  # the sum's equation, beside which rounding is all that the others move it by
    system = torch.cat([small, torch.full((1, small.shape[1]), heavy, dtype=small.dtype)])
    goal = torch.zeros(len(system), dtype=small.dtype)
    goal[-1] = heavy
    found = torch.from_numpy(nnls(system.numpy(), goal.numpy())[0])
    return found / found.sum()


def effective(shares: Tensor) -> float:
    """``exp(entropy)`` of shares that sum to 1: how many candidates they are spread over.

    >>> round(effective(torch.tensor([0.5, 0.5, 0.0])), 6)
    2.0
    """
    return float(torch.special.entr(shares.double()).sum().exp())


def shown(x0hat: Tensor, candidates: Tensor, nothing: Tensor) -> float:
    """How many candidates an estimate shows: the effective number of their shares, times the share that is not ``nothing``.

    ``nothing``: the latent of a video that gives no answer. Without it an estimate that shows none would lie in the middle
    between all candidates and pass for their blend.
    """
    found = clipped(weights(x0hat, torch.cat([nothing[None], candidates])))
    answers = found[1:]
    mass = float(answers.sum())
    return mass * effective(answers / mass) if mass > 0 else 0.0


def scores(x_t: Tensor, candidates: Tensor, sigma: float, alpha: float | None = None) -> Tensor:
    """``[candidate]``, larger where likelier: the log-likelihood but for what all share, times ``sigma^2 / alpha``.

    So scaled it stays finite at sigma 1, where the likelihood no longer tells candidates apart but still ranks them.
    """
    rows = _rows(candidates)
    return rows @ _row(x_t) - (1 - sigma if alpha is None else alpha) / 2 * rows.square().sum(1)


def bayes_posterior(x_t: Tensor, candidates: Tensor, sigma: float, alpha: float | None = None) -> Tensor:
    """``[candidate]``: the exact posterior from a state at a noise level, every candidate being equally likely before.

    Uniform at sigma 1. At sigma 0 all on the nearest candidates.
    """
    found = scores(x_t, candidates, sigma, alpha)
    if sigma == 0:
        nearest = (found == found.max()).double()
        return nearest / nearest.sum()
    logits = found * ((1 - sigma if alpha is None else alpha) / sigma**2)
    return (logits - torch.logsumexp(logits, 0)).exp()


def pick(x_t: Tensor, candidates: Tensor, sigma: float, alpha: float | None = None) -> int:
    """The likeliest candidate; at sigma 1 that of the limit from below: what the noise alone leans to."""
    return int(scores(x_t, candidates, sigma, alpha).argmax())


def margin(x_t: Tensor, candidates: Tensor, sigma: float, alpha: float | None = None) -> float:
    """Distance of a state from the nearest boundary at which the pick would change, in standard deviations of its noise.

    Between two candidates the boundary is a plane; ``scores`` differ by the distance to it times the candidates' distance.
    Infinite for one candidate. ValueError at sigma 0, where there is no noise.
    """
    if sigma == 0:
        raise ValueError("a margin in standard deviations of the noise needs noise: sigma is 0")
    found, rows = scores(x_t, candidates, sigma, alpha), _rows(candidates)
    best = int(found.argmax())
    apart = (rows - rows[best]).norm(dim=1)
    others = apart > 0
    distances = (found[best] - found[others]) / apart[others]
    return float(distances.min() / sigma) if others.any() else float("inf")


def total_variation(first: Tensor, second: Tensor) -> float:
    """Half of the summed differences of two lists of shares: 0 equal, 1 nothing in common."""
    return 0.5 * float((first.double() - second.double()).abs().sum())


def _row(state: Tensor) -> Tensor:
    return state.detach().cpu().double().flatten()  # not every accelerator has float64


def _rows(candidates: Tensor) -> Tensor:
    return candidates.detach().cpu().double().flatten(1)
