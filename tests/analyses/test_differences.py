"""Differences of runs: against published numbers, by simulation, and item by item."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cos_interp.analyses.driver.estimates import Mean, PairedShares, Share
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.driver.rules import judge
from cos_interp.analyses.reporting.differences import between, paired, unpaired
from cos_interp.interp.files import plain


def of_shares(count: int, n: int) -> Number:
    low, high = stats.binomtest(count, n).proportion_ci(method="wilson")
    return Number(count / n, low, high, n, "share")


@pytest.mark.parametrize(
    ("first", "second", "low", "high"), [((48, 80), (56, 70), 0.0524, 0.3339), ((3, 10), (9, 10), 0.1705, 0.8090)]
)
def test_of_two_samples_of_shares_it_is_newcombes_interval(first, second, low, high):
    """Newcombe (1998), Interval estimation for the difference between independent proportions, table II, method 10."""
    found = unpaired(of_shares(*first), of_shares(*second))
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
    assert found.value == pytest.approx(second[0] / second[1] - first[0] / first[1])


def test_two_samples_are_covered():
    """Skewed means of unequal spread and number, and shares: the true difference lies within at least about as often as said."""
    chance, inside = np.random.default_rng(0), np.zeros(2)
    for _ in range(300):
        a, b = Mean(chance.exponential(1, 15), normal=True).number(), Mean(chance.normal(2, 3, 25), normal=True).number()
        s, t = Share(chance.random(20) < 0.3).number(), Share(chance.random(30) < 0.6).number()
        for place, (found, true) in enumerate(((unpaired(a, b), 1.0), (unpaired(s, t), 0.3))):
            inside[place] += found.low <= true <= found.high
    assert (inside / 300 >= 0.92).all(), inside / 300


def test_the_same_items_are_held_against_themselves():
    own, others = {f"i{k}": k * 10.0 for k in range(12)}, {f"i{k}": k * 10.0 + 1 + 0.1 * (k % 3) for k in range(1, 14)}
    number = lambda items: Mean(list(items.values()), normal=True).number()
    apart = between(number(own), number(others), own, others)
    assert apart.pairs == 11 and apart.number.low > 1 and apart.number.high < 1.2 and apart.side == "more"
    assert "paired over 11 items" in str(apart)
    two = between(number(own), number(others), own, others, same=lambda item: False)
    assert two.pairs == 0 and two.number.low < -10 and two.side == "no difference shown" and "unpaired, 12 and 13" in str(two)


def test_equal_runs_have_no_difference_in_any_item():
    items = {f"i{k}": 0.1 * k for k in range(14)}
    number = Mean(list(items.values())).number()
    found = between(number, number, items, items)
    assert (found.number.value, found.side, str(found)) == (0.0, "no difference in any item", "+0.00 (paired over 14 items)")


def test_outcomes_have_newcombes_paired_interval_and_other_differences_of_0_and_1_do_not():
    outcomes = paired([0, 0, 1, 1, 1] * 4, [1, 0, 1, 1, 0] * 4)
    assert outcomes.kind == "paired shares" and outcomes.value == 0
    counts = paired([1.0, 2.0, 3.0, 5.0] * 3, [2.0, 2.0, 4.0, 5.0] * 3)
    assert counts.kind == "mean" and counts.interval()[0] > 0


@pytest.mark.parametrize(("differ", "side"), [(2, "no difference shown"), (5, "no difference shown"), (6, "less")])
def test_a_side_is_told_of_outcomes_where_six_items_differ(differ, side):
    """Of five that all differ to one side McNemar's exact p is .0625, and of two .5, whatever Newcombe's interval is."""
    own, others = {f"i{k}": 1.0 for k in range(differ)}, {f"i{k}": 0.0 for k in range(differ)}
    found = between(of_shares(differ, differ), of_shares(0, differ), own, others)
    assert found.number.high < 0 and found.side == side
    lost = between(of_shares(differ, differ), of_shares(0, differ), {**own, "x": np.nan}, {**others, "x": 1.0})
    assert lost == found  # an item without a value is none of them


def test_a_column_that_is_indexed_by_items_keeps_what_each_has():
    column = pd.Series({"a": 1.0, "b": np.nan, "c": 0.0})
    assert Mean(column).named == {"a": 1.0, "c": 0.0} == Share(column).named
    assert PairedShares(column, 1 - column).named == {"a": 1.0, "c": -1.0}
    assert Mean(column.set_axis(pd.MultiIndex.from_tuples([("a", 0), ("a", 1), ("b", 0)]))).named == {"a 0": 1.0, "b 0": 0.0}
    for without in (column.to_numpy(), [1.0, 0.0], column.reset_index(drop=True), column.set_axis(["a", "a", "b"])):
        assert Mean(without).named == {}
    found = judge("layers.turn-energy", Mean(column), "s", Number(0.0))
    again = Finding.of(json.loads(json.dumps(plain(found.data()))))
    assert dict(again.items) == {"a": 1.0, "c": 0.0}


def test_what_has_no_interval_gives_none():
    found = unpaired(Number(1.0, n=3), Number(2.0, 1.5, 2.5, 9))
    assert found.value == 1 and found.low != found.low and between(Number(1.0, n=3), Number(2.0), {}, {}).side == "no interval"
