"""Seeds: what they are about decides them, and nothing else; purposes never share one."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from cos_interp.analyses.chain_of_steps import ChainOfStepsConfig
from cos_interp.analyses.kit.problems import problems
from cos_interp.analyses.kit.seeds import BITS, PURPOSES, seed_for

ABOUT = st.lists(st.one_of(st.integers(0, 10**6), st.text(max_size=8)), max_size=4)


@given(ABOUT, ABOUT)
def test_two_purposes_never_share_a_seed(first, second):
    for a, b in itertools.permutations(PURPOSES, 2):
        assert seed_for(a, *first) != seed_for(b, *second)


@given(st.sampled_from(list(PURPOSES)), ABOUT)
def test_every_seed_is_exact_as_a_float_and_above_those_made_elsewhere(purpose, about):
    seed = seed_for(purpose, *about)
    assert 2**BITS <= seed < 2**53 and int(float(seed)) == seed
    assert seed == seed_for(purpose, *about)


def test_ten_thousand_items_have_ten_thousand_seeds():
    about = list(itertools.product(range(5), ("maze", "place"), range(100), range(10)))
    assert len({seed_for("noise", *a) for a in about}) == len(about)
    assert seed_for("noise", 1, 12) != seed_for("noise", 11, 2) and seed_for("noise", "1") != seed_for("noise", 1)


def test_the_noise_of_an_item_does_not_depend_on_the_other_tasks():
    alone = problems(ChainOfStepsConfig(tasks=("place",), items=3))
    beside = problems(ChainOfStepsConfig(tasks=("bounce", "maze", "place"), items=7))
    seeds = {p.name: (p.seed, p.noise(1), p.index) for p in beside}
    assert all(seeds[p.name] == (p.seed, p.noise(1), p.index) for p in alone)
    assert [p.first for p in alone] == [True, False, False]
    every = [p.noise(n) for p in beside for n in range(4)]
    assert len(set(every)) == len(every)
