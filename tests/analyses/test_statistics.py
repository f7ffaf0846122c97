from __future__ import annotations

from math import comb

import numpy as np
import pytest
import torch

from cos_interp.analyses.driver.statistics import bootstrap_mean, projection, remaining_share, reread_share
from cos_interp.interp.trajectory import clean_estimate
from cos_interp.tasks.tally import share_interval


def test_projection_by_hand():
    corrupt, clean = torch.tensor([0.0, 0.0]), torch.tensor([2.0, 0.0])
    assert projection(torch.tensor([1.0, 5.0]), corrupt, clean) == 0.5
    assert projection(torch.tensor([-2.0, 0.0]), corrupt, clean) == -1.0  # never clipped
    assert projection(torch.tensor([6.0, 0.0]), corrupt, clean) == 3.0
    assert np.isnan(projection(corrupt, corrupt, corrupt))
    a, b = torch.randn(100), torch.randn(100)
    assert projection(a, a, b) == 0.0 and projection(b, a, b) == 1.0


def test_the_exact_interval_of_a_share_against_known_values_and_its_coverage():
    """The bounds solve P(X >= k | low) = P(X <= k | high) = 0.025; enumerated, the interval covers at least 95 % everywhere."""
    assert share_interval(20, 20) == pytest.approx((0.025 ** (1 / 20), 1.0)) and share_interval(0, 20)[0] == 0.0
    assert share_interval(5, 10) == pytest.approx((0.18709, 0.81291), abs=1e-5)
    assert all(np.isnan(share_interval(0, 0)))
    for n in (1, 6, 20):
        bounds = [share_interval(k, n) for k in range(n + 1)]
        for share in np.linspace(0.01, 0.99, 99):
            chance = [comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(n + 1)]
            assert sum(c for c, (low, high) in zip(chance, bounds, strict=True) if low <= share <= high) >= 0.95


def test_bootstrap_covers_the_mean_about_95_times_in_100():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        _, low, high = bootstrap_mean(rng.normal(1.0, 2.0, 40), resamples=500, seed=trial)
        hits += low <= 1.0 <= high
    assert 0.88 <= hits / 200 <= 0.99
    assert np.isnan(bootstrap_mean(np.array([1.0]))[1]) and np.isnan(bootstrap_mean(np.array([]))[0])


def test_reread_share_is_what_euler_gives_a_model_that_follows_its_condition_only():
    """Euler on v = noise - x0(condition), with another condition in some steps: the share is exact."""
    sigmas = [1.0, 0.8, 0.5, 0.2, 0.0]
    corrupt, clean, noise = 0.0, 1.0, 3.0

    def final(first: int, last: int) -> float:
        x = noise
        for k in range(4):
            answer = clean if first <= k <= last else corrupt
            x += (sigmas[k + 1] - sigmas[k]) * (noise - answer)
        return x

    base, whole = final(9, 9), final(0, 3)
    for first, last in ((0, 0), (2, 2), (1, 3), (0, 1)):
        assert (final(first, last) - base) / (whole - base) == pytest.approx(reread_share(sigmas, first, last))
    assert remaining_share(sigmas, 3) == 1.0


def test_clean_estimate_recovers_x0_from_the_exact_velocity():
    x0, noise = torch.randn(4, 4), torch.randn(4, 4)
    for sigma in (0.1, 0.7, 1.0):
        x_t = (1 - sigma) * x0 + sigma * noise
        torch.testing.assert_close(clean_estimate(x_t, noise - x0, sigma), x0)
