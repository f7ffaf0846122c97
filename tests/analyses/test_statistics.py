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


def test_the_interval_of_a_number_is_that_of_its_kind():
    """Outcomes: Clopper and Pearson's. Few values: Student's t. More of them: the bootstrap-t, by resamples of its own here."""
    share = mean_number([1.0, 0.0, 1.0, np.nan, 1.0])
    exact = scipy.stats.binomtest(3, 4).proportion_ci(method="exact")
    assert (share.low, share.high) == pytest.approx((exact.low, exact.high)) and share.n == 4
    few = mean_number([0.5, 0.2, 0.9, 0.5])
    assert (few.low, few.high) == pytest.approx(scipy.stats.t.interval(0.95, 3, 0.525, scipy.stats.sem([0.5, 0.2, 0.9, 0.5])))
    values = np.random.default_rng(1).exponential(size=30)
    drawn = np.random.default_rng(2).choice(values, (20_000, 30))
    t = (drawn.mean(1) - values.mean()) / scipy.stats.sem(drawn, axis=1)
    low, high = values.mean() - scipy.stats.sem(values) * np.quantile(t, [0.975, 0.025])
    many = mean_number(values)
    assert (many.low, many.high) == pytest.approx((low, high), rel=0.05) and many.value == values.mean()
    assert str(mean_number([0.5] * 5)) == "0.50 in all 5" and str(mean_number([1.0] * 20)) == "20 of 20; at least 0.83"
    lonely = mean_number([0.0] * 12 + [0.5])  # a resample without the one that differs has no t
    assert (lonely.low, lonely.high) == pytest.approx(scipy.stats.t.interval(0.95, 12, 0.5 / 13, 0.5 / 13))
    assert all(np.isnan((mean_number([]).value, mean_number([0.3]).low)))


def test_items_count_once_each_and_those_without_a_value_not_at_all():
    known = mean_number([1.0, np.nan, 4.0, np.nan])
    assert (known.value, known.n) == (2.5, 2) and np.isnan(mean_number([np.nan]).value)
    rows = pd.DataFrame({"problem": ["a", "a", "a", "b", "c"], "value": [0.0, 0.0, 3.0, 5.0, np.nan]})
    assert (by_item(rows, "value").value, by_item(rows, "value").n) == (3.0, 2)  # a: 1, b: 5


def test_differences_that_happen_to_be_0_are_no_shares():
    """Of 20 equal ones the exact interval of a share leaves .1684 open, on either side."""
    for found in (
        mean_number([0.0] * 20, (-1, 1)),
        by_item(pd.DataFrame({"problem": range(20), "value": 0.0}), "value", bounds=(-1, 1)),
    ):
        assert (found.low, found.high) == pytest.approx((-0.1684, 0.1684), abs=1e-4)
    assert mean_number([0.0] * 20, (0, 1)).low == 0 and mean_number([0.0] * 20).low == 0


def test_paired_differences_are_those_of_one_item():
    """Ten items in which first + second is 9: differences -9, -7 .. 9, whose mean has a standard error of sqrt(33 / 10)."""
    first = pd.Series(range(10), index=list("abcdefghij"), dtype=float)
    second = 9 - first
    found = paired(first, second.sample(frac=1, random_state=0))
    assert found.value == 0 and found.n == 10
    right = scipy.stats.t.ppf(0.975, 9) * (sum(d**2 for d in range(-9, 10, 2)) / 9 / 10) ** 0.5
    assert found.high == pytest.approx(right) and found.low == pytest.approx(-right)
    same = paired(first, first.sample(frac=1, random_state=0) + 2)
    assert same.value == -2 and str(same) == "-2.00 in all 10"
    whole = paired(pd.Series([1.5, 2.5, 3.0, 0.2]), pd.Series([0.5, 1.5, 3.0, 0.2]))  # differences 1, 1, 0, 0: no shares of items
    assert (whole.kind, whole.low) == ("normal mean", pytest.approx(0.5 - scipy.stats.t.ppf(0.975, 3) * (1 / 3) ** 0.5 / 2))
    assert paired(first, second.drop(["a", "b"])).n == 8 and paired(first, second.replace(9.0, np.nan)).n == 9


def test_paired_outcomes_have_newcombes_interval():
    """His own example (1998, table II, 36 / 12 / 2 / 0 pairs of 50, method 10 with correction): 0.2 [0.0569, 0.3404]."""
    gained, lost = pd.Series([1] * 36 + [1] * 12 + [0] * 2), pd.Series([1] * 36 + [0] * 12 + [1] * 2)
    found = paired(gained, lost)
    assert found.value == pytest.approx(0.2) and (found.low, found.high) == pytest.approx((0.0569, 0.3404), abs=1e-4)


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
