from __future__ import annotations

import numpy as np
import pytest
import torch

from cos_interp.analyses.driver.statistics import bootstrap_mean, projection, remaining_share, reread_share
from cos_interp.interp.trajectory import clean_estimate
from cos_interp.tasks.tally import wilson


def test_projection_by_hand():
    corrupt, clean = torch.tensor([0.0, 0.0]), torch.tensor([2.0, 0.0])
    assert projection(torch.tensor([1.0, 5.0]), corrupt, clean) == 0.5
    assert projection(torch.tensor([-2.0, 0.0]), corrupt, clean) == -1.0  # never clipped
    assert projection(torch.tensor([6.0, 0.0]), corrupt, clean) == 3.0
    assert np.isnan(projection(corrupt, corrupt, corrupt))
    a, b = torch.randn(100), torch.randn(100)
    assert projection(a, a, b) == 0.0 and projection(b, a, b) == 1.0


def test_wilson_against_known_values():
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert all(np.isnan(wilson(0, 0)))


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
