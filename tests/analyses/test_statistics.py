from __future__ import annotations

from math import comb

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from sklearn.metrics import roc_auc_score

from cos_interp.analyses.driver.statistics import (
    auc,
    bootstrap_mean,
    by_item,
    entropy,
    mean_number,
    paired,
    projection,
    remaining_share,
    reread_share,
)
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


def test_the_bounds_of_the_bootstrap_by_enumeration():
    """Means of eight items, half of them 1, are binomial: 3.5 % of the resamples lie at 1/8 or below, and 0.4 % at 0."""
    assert bootstrap_mean(np.repeat([0.0, 1.0], 4), resamples=20_000) == (0.5, 1 / 8, 7 / 8)


def test_items_count_once_each_and_those_without_a_value_not_at_all():
    known = mean_number([1.0, np.nan, 4.0, np.nan])
    assert (known.value, known.n) == (2.5, 2) and np.isnan(mean_number([np.nan]).value)
    rows = pd.DataFrame({"problem": ["a", "a", "a", "b", "c"], "value": [0.0, 0.0, 3.0, 5.0, np.nan]})
    assert (by_item(rows, "value").value, by_item(rows, "value").n) == (3.0, 2)  # a: 1, b: 5


def test_paired_differences_are_those_of_one_item():
    """Ten items in which first + second is 9: differences -9, -7 .. 9, whose mean has a standard error of sqrt(33 / 10)."""
    first = pd.Series(range(10), index=list("abcdefghij"), dtype=float)
    second = 9 - first
    found = paired(first, second.sample(frac=1, random_state=0))
    assert found.value == 0 and found.n == 10
    assert found.high == pytest.approx(1.96 * 3.3**0.5, rel=0.08) and found.low == pytest.approx(-found.high, rel=0.08)
    same = paired(first, first.sample(frac=1, random_state=0) + 2)
    assert (same.value, same.low, same.high) == (-2, -2, -2)
    assert paired(first, second.drop(["a", "b"])).n == 8 and paired(first, second.replace(9.0, np.nan)).n == 9


def test_auc_is_the_area_under_the_roc_curve_with_ties():
    assert auc(np.array([1.0, 1.0]), np.array([True, False])) == 0.5
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 4, 60), rng.random(60) < 0.4
    assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    assert np.isnan(auc(scores, labels & False))


def test_entropy_is_in_bits():
    assert entropy(["a", "b", "c", "d"]) == 2 and entropy(["a", "a"]) == 0
    assert entropy(list("aaabbc")) == pytest.approx(scipy.stats.entropy([3, 2, 1], base=2))


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
