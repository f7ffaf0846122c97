"""Centred kernel alignment of two sets of features, in feature space: no token x token matrix is formed.

Linear CKA: Kornblith et al. 2019, eq. 2 to 4. Debiased: HSIC_1 of Song et al. 2012, eq. 4, as used by Nguyen et al. 2021.
Rows are spatio-temporal tokens, columns are channels; the paper (CoS section 3.2, figure 3c) does not say what it took.
"""

from __future__ import annotations

import math

from torch import Tensor


def linear_cka(x: Tensor, y: Tensor) -> float:
    """``|Y'X|^2 / (|X'X| |Y'Y|)`` of column-centred ``x [n, p]`` and ``y [n, q]``: 1 for equal up to rotation and scale.

    NaN when one of them is constant over the rows. With more columns than rows it is near 1 for anything.
    """
    x, y = (t.double() - t.double().mean(0) for t in (x, y))
    return _ratio(float((y.T @ x).square().sum()), float((x.T @ x).norm()), float((y.T @ y).norm()))


def debiased_cka(x: Tensor, y: Tensor) -> float:
    """CKA from the unbiased HSIC: about 0 for unrelated features whatever the number of columns (it can be below 0).

    Raises ValueError for fewer than four rows.
    """
    if len(x) < 4:
        raise ValueError(f"debiased CKA needs at least 4 rows, there are {len(x)}")
    x, y = (t.double() - t.double().mean(0) for t in (x, y))
    own_x, own_y = unbiased_hsic(x, x), unbiased_hsic(y, y)
    if own_x <= 0 or own_y <= 0:
        return math.nan
    return _ratio(unbiased_hsic(x, y), math.sqrt(own_x), math.sqrt(own_y))


def unbiased_hsic(x: Tensor, y: Tensor) -> float:
    """HSIC_1 of the kernels ``XX'`` and ``YY'`` with their diagonals put to 0 (Song et al. 2012, eq. 4).

    ``[tr(KL) + (1'K1)(1'L1) / ((n-1)(n-2)) - 2 (1'KL1) / (n-2)] / (n (n-3))``, each term from ``[p, q]`` products.
    """
    n = len(x)
    diagonal_x, diagonal_y = x.square().sum(1), y.square().sum(1)
    sums_x, sums_y = x @ x.sum(0) - diagonal_x, y @ y.sum(0) - diagonal_y  # K1 and L1 without the diagonal
    trace = (x.T @ y).square().sum() - diagonal_x @ diagonal_y
    total = trace + sums_x.sum() * sums_y.sum() / ((n - 1) * (n - 2)) - 2 * (sums_x @ sums_y) / (n - 2)
    return float(total) / (n * (n - 3))


def dissimilarity(x: Tensor, y: Tensor, debiased: bool) -> float:
    """1 - CKA: 0 for no effect, 1 for states that share nothing (CoS figure 3c)."""
    return 1 - (debiased_cka if debiased else linear_cka)(x, y)


def latent_features(latent: Tensor) -> Tensor:
    """``[channel, frame, row, col]`` as ``[token, channel]``."""
    return latent.flatten(1).T


def state_features(state: Tensor) -> Tensor:
    """``[frame, row, col, d_model]`` as ``[token, d_model]``."""
    return state.flatten(0, 2)


def _ratio(over: float, first: float, second: float) -> float:
    return over / (first * second) if first * second > 0 else math.nan
