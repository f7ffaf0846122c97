"""The order between pieces: what is needed is on disk before, whatever the number of workers."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cos_interp.analyses.driver import experiment
from cos_interp.analyses.driver.experiment import Experiment, Report, Unit, waves
from cos_interp.analyses.driver.settings import SuiteConfig
from cos_interp.interp.errors import InterpError

NEEDS = {"a": [], "b": [], "c": ["a", "b"], "d": ["c"], "e": ["b"]}


@given(st.permutations(list(NEEDS)))
def test_a_piece_comes_after_what_it_needs_in_any_order_of_the_list(order):
    groups = list(waves([(name, [name]) for name in order], NEEDS.__getitem__))
    place = {name: i for i, group in enumerate(groups) for name in group}
    assert sorted(place) == sorted(NEEDS)
    assert all(place[need] < place[name] for name, needs in NEEDS.items() for need in needs)
    assert all(group == [n for n in order if n in group] for group in groups)


def test_a_missing_and_a_circular_need_are_errors_before_the_run():
    with pytest.raises(ValueError, match="piece a needs unit 'z', which no piece makes"):
        list(waves([("a", ["a"])], lambda piece: ["z"]))
    with pytest.raises(ValueError, match="in a circle: "):
        list(waves([("a", ["a"]), ("b", ["b"])], lambda piece: ["b" if piece == "a" else "a"]))


def test_a_wrong_model_costs_no_work(tmp_path):
    def pieces(config):
        raise AssertionError("items were made before the model was looked for")

    made = Experiment("early", SuiteConfig, pieces, work, lambda result, store: Report([], {}, ""))
    with pytest.raises(InterpError, match="no model 'organsim'"):
        experiment.run(made, SuiteConfig(model="organsim"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def work(model, config, store, piece):
    for need in NEEDS[piece]:
        assert store.unit(need) is not None, f"{piece} began before {need} was there"
    unit = Unit([{"piece": piece, "process": os.getpid()}])
    store.add_unit(piece, unit.rows, unit.tensors, unit.facts)
    yield piece


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_real_processes_find_what_they_need(workers, organism, tmp_path):
    made = Experiment(
        "ordered", SuiteConfig, lambda config: [(name, [name]) for name in reversed(NEEDS)], work,
        lambda result, store: Report([], {}, ""), needs=lambda config, piece: NEEDS[piece],
    )  # fmt: skip
    seen = []
    note = lambda done, total, what: seen.append(what)
    result = experiment.run(
        made,
        SuiteConfig(),
        tmp_path / "run",
        model=organism,
        workers=workers,
        progress=note,
    )
    assert list(result.rows.piece) == list(reversed(NEEDS)) and sorted(seen[1:]) == sorted(NEEDS)
    assert (set(result.rows.process) == {os.getpid()}) == (workers == 1)
