"""Shards: every unit in exactly one, one writer of each, and what is joined is of one run."""

from __future__ import annotations

import json
import os
import shutil
import time

import pytest
from faults import content
from hypothesis import given
from hypothesis import strategies as st
from stores import ASKED, asked

from cos_interp.analyses import EXPERIMENTS
from cos_interp.analyses.driver import experiment, lock, processor, twins
from cos_interp.analyses.driver.errors import RunError, Taken
from cos_interp.analyses.driver.experiment import Experiment, Report, Unit
from cos_interp.analyses.driver.facts import Facts
from cos_interp.analyses.driver.finishing import finish
from cos_interp.analyses.driver.merging import merge
from cos_interp.analyses.driver.progress import Watched
from cos_interp.analyses.driver.registry import load
from cos_interp.analyses.driver.settings import SuiteConfig
from cos_interp.analyses.driver.shard import Shard, dealt
from cos_interp.analyses.driver.share import holders, share
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.self_correction import SelfCorrectionConfig
from cos_interp.interp import HookedVideoPipeline
from cos_interp.interp.files import read_sealed_json, sealed_json

# --- who does what ----------------------------------------------------------------------------------------------------

NAMES = st.lists(st.text("abc-0123456789", min_size=1, max_size=12), unique=True, max_size=40)


@given(NAMES, st.integers(1, 50), st.randoms(use_true_random=False))
def test_every_name_is_in_exactly_one_shard_whatever_the_order_and_none_has_two_more(names, count, chance):
    found = dealt(names, count)
    assert set(found) == set(names) and all(1 <= shard.number <= count == shard.count for shard in found.values())
    sizes = [sum(shard.number == number for shard in found.values()) for number in range(1, count + 1)]
    assert sum(sizes) == len(names) and max(sizes) - min(sizes) <= 1
    chance.shuffle(names)
    assert dealt(names, count) == found


@given(st.lists(st.lists(st.integers(1, 4), max_size=8), max_size=4), st.integers(1, 9))
def test_the_units_of_a_piece_are_in_one_shard_and_each_group_is_dealt_out_by_itself(sizes, count):
    waves = [[(None, [f"w{w}-p{p}-u{u}" for u in range(n)]) for p, n in enumerate(wave)] for w, wave in enumerate(sizes)]
    found = holders(waves, count)
    assert sorted(found) == sorted(unit for wave in waves for _, units in wave for unit in units)
    for wave in waves:
        held = [{found[unit] for unit in units} for _, units in wave]
        assert all(len(one) == 1 for one in held)
        each = [sum(Shard(number, count) in one for one in held) for number in range(1, count + 1)]
        assert max(each) - min(each) <= 1


@given(st.integers(1, 999_999), st.data())
def test_a_shard_is_read_as_it_is_written(count, data):
    shard = Shard(data.draw(st.integers(1, count)), count)
    assert Shard.of(str(shard)) == shard == Shard.of(f" {shard.number} / {count}")


@pytest.mark.parametrize(
    "text", ["", "1", "/", "1/", "/2", "0/2", "3/2", "1/0", "0/0", "-1/2", "1/-2", "1.0/2", "a/b", "1/2/3", "²/4"]
)
def test_what_is_no_shard_is_refused_with_what_to_write(text):
    with pytest.raises(ValueError, match=r"--shard .*: .* from 1/\d+ to \d+/\d+"):
        Shard.of(text)


# --- who may write ----------------------------------------------------------------------------------------------------

ONE, TWO = Shard(1, 2), Shard(2, 2)


def test_each_shard_has_one_writer_and_the_whole_run_is_written_alone(tmp_path):
    with lock.Writer(tmp_path, ONE).holding(), lock.Writer(tmp_path, TWO).holding():
        assert lock.shards(tmp_path) == [ONE, TWO]
        with pytest.raises(Taken, match=rf"shard 1/2 of .* is being written by process {os.getpid()} on "):
            lock.Writer(tmp_path, ONE).holding().__enter__()
        with pytest.raises(Taken, match="shard 1/2 of"):
            lock.Writer(tmp_path).holding().__enter__()
        with lock.Writer(tmp_path, Shard(1, 3)).holding():  # shared out otherwise: at worst the same unit twice
            pass
    with lock.Writer(tmp_path).holding(), pytest.raises(Taken, match="is being written by process"):
        lock.Writer(tmp_path, ONE).holding().__enter__()
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_shard_left_is_taken_away_and_another_machines_counts_while_it_beats(tmp_path):
    signed = tmp_path / ".owner-1-of-2.json"
    signed.write_text(json.dumps({"token": "t", "host": "elsewhere", "pid": 1, "since": "noon"}))
    assert lock.lives(tmp_path, ONE) and not lock.lives(tmp_path, TWO)
    for shard in (None, ONE):
        with pytest.raises(Taken, match=r"shard 1/2 .*process 1 on elsewhere .* delete \.owner-1-of-2\.json there"):
            lock.Writer(tmp_path, shard).holding().__enter__()
    long_ago = time.time() - lock.SILENT - 1
    os.utime(signed, (long_ago, long_ago))
    assert not lock.lives(tmp_path, ONE)
    for name in (".gate", ".lock-1-of-2", ".lock-2-of-2"):  # of processes that were killed
        (tmp_path / name).touch()
    with lock.Writer(tmp_path).holding():
        assert not signed.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_shard_neither_grows_a_run_nor_clears_away_what_another_is_at(tmp_path):
    with RunStore.open(tmp_path, ASKED, shard=ONE) as store:
        half = tmp_path / "shards" / ".cos-0123456789abcdef.tmp"  # as a write leaves it
        half.write_bytes(b"half")
        with RunStore.open(tmp_path, ASKED, shard=TWO):
            assert half.exists()
        with pytest.raises(RunError, match="cannot grow while another shard"), RunStore.open(tmp_path, asked(items=4), shard=TWO):
            pass
        store.add_unit("u0", [], {}, Facts())
    elsewhere = asked(memory="60GB")  # which decides no number
    with RunStore.open(tmp_path, ASKED, shard=ONE), RunStore.open(tmp_path, elsewhere, shard=TWO, derived=["u0"]) as store:
        assert store.unit("u0") is not None
    with RunStore.open(tmp_path, asked(items=4), shard=TWO) as store:
        assert not half.exists() and store.facts()["shards"] == 2


def test_what_one_shard_met_is_known_until_the_run_is_whole(tmp_path):
    with pytest.raises(ValueError, match="boom"), RunStore.open(tmp_path, ASKED, shard=ONE):
        raise ValueError("boom")
    with RunStore.open(tmp_path, ASKED, shard=TWO) as store:
        assert store.facts()["status"] == "failed" and store.facts()["error"] == "ValueError: boom"
    with RunStore.open(tmp_path, ASKED) as store:
        assert store.facts()["status"] == "running" and not {"error", "shards"} & set(store.facts())


# --- a real run, of a tiny model --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return HookedVideoPipeline.from_pretrained("tiny:wan2.1")


@pytest.fixture(scope="module")
def home(tmp_path_factory, model):
    """A finished run, ``whole``, and its two shards in folders of their own, ``1`` and ``2``, with a twin in each."""
    home = tmp_path_factory.mktemp("shards")
    (home / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"a ball, {n}"}) + "\n" for n in range(3)))
    experiment.run_and_report(load("self-correction"), asked_for(home), home / "whole", model=model, workers=1)
    for number in (1, 2):
        share(load("self-correction"), asked_for(home), home / str(number), shard=Shard(number, 2), model=model, workers=1)
    return home


def asked_for(home, **more):
    return SelfCorrectionConfig(prompts=str(home / "prompts.jsonl"), **{"num_inference_steps": 2, "twins": 1} | more)


def taken(home, tmp_path, *names):
    """Copies of some of the runs, which a test may damage."""
    for name in names:
        shutil.copytree(home / name, tmp_path / name)
    return [tmp_path / name for name in names]


def changed(folder, **what):
    facts = read_sealed_json((folder / "run.json").read_bytes())
    (folder / "run.json").write_bytes(sealed_json({**facts, **what}))
    return facts


def test_shards_of_two_folders_are_joined_to_the_bytes_of_one_process(home, tmp_path):
    made = merge([home / "1", home / "2"], tmp_path / "joined")
    assert (made.units, made.copied) == (6, 6)
    assert merge([home / "2", home / "1"], tmp_path / "joined").copied == 0  # the same again
    finish(tmp_path / "joined", EXPERIMENTS)
    assert content(tmp_path / "joined") == content(home / "whole")
    assert merge([home / "1"], tmp_path / "joined").copied == 0
    assert RunStore(tmp_path / "joined").verify() == []  # and it is still complete


def test_shards_may_be_joined_in_one_of_their_folders(home, tmp_path):
    first, second = taken(home, tmp_path, "1", "2")
    merge([first, second], first)
    finish(first, EXPERIMENTS)
    assert content(first) == content(home / "whole")


def test_what_is_missing_is_named_with_its_shard_and_nothing_is_written(home, tmp_path):
    (first,) = taken(home, tmp_path, "1")
    before = content(first)
    other = [path.stem for path in (home / "2" / "shards").iterdir()]
    assert other
    with pytest.raises(RunError, match=r"is not whole, .* missing: ") as told:
        finish(first, EXPERIMENTS)
    assert all(f"{unit} (shard 2/2)" in str(told.value) and f"twin-0/{unit} (shard 2/2)" in str(told.value) for unit in other)
    assert content(first) == before
    parts = Watched(first, EXPERIMENTS).look().parts
    assert [part.state for part in parts] == ["done", "nobody is at it"] and parts[1].done == 0


def test_the_command_without_a_shard_goes_on_from_shards(home, model, tmp_path):
    (first,) = taken(home, tmp_path, "1")
    experiment.run_and_report(load("self-correction"), asked_for(home), first, model=model, workers=1)
    assert content(first) == content(home / "whole")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"config": {"seed": 1}}, "--seed: 0, now 1"),
        ({"config": {"twins": 0}}, "--twins: "),
        ({"model": {"parts": {"transformer": "0"}}}, "the model: other "),
        ({"versions": {"rules": "of another day"}}, "version of rules: .*, now of another day"),
        ({"versions": {"threads": "7"}}, "version of threads: 1, now 7"),
        ({"inputs": {"--prompts": {}}}, "--prompts: entry .* is gone"),
    ],
)
def test_another_run_is_not_joined(what, said, home, tmp_path):
    first, second = taken(home, tmp_path, "1", "2")
    held = read_sealed_json((second / "run.json").read_bytes())
    changed(second, **{key: {**held[key], **value} for key, value in what.items()})
    with pytest.raises(RunError, match=rf"{second} holds another run than {first} .*{said}"):
        merge([first, second], tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


def test_one_unit_with_other_bytes_is_refused_by_name_and_a_damaged_one_left_out(home, tmp_path):
    first, second = taken(home, tmp_path, "1", "2")
    unit = next((first / "shards").iterdir())
    with RunStore.open(second, changed(second), parts=["twin-0"]) as store:
        store.made = {"processor": "an abacus", "threads": "1"}
        store.add_unit(unit.stem, *other_rows(first, unit.stem))
    with pytest.raises(RunError, match=rf"unit {unit.stem} lies in .* with other bytes .*an abacus, 1 threads"):
        merge([first, second], tmp_path / "joined")
    assert not (tmp_path / "joined").exists()
    again = second / "shards" / unit.name
    again.write_bytes(again.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=rf"{again} is damaged, or of another run: it is left out"):
        merge([first, second], tmp_path / "joined")
    lost = next((home / "2" / "shards").iterdir()).stem
    (tmp_path / "joined" / "shards" / f"{lost}.safetensors").write_bytes(b"lost")
    with pytest.raises(RunError, match=rf"1 missing: {lost} .shard 2/2."):
        finish(tmp_path / "joined", EXPERIMENTS)


def other_rows(folder, unit):
    store = RunStore(folder, load("self-correction").facts)
    rows, facts = store.finished(unit)
    return rows, store.tensors(unit), facts


def test_units_of_two_kinds_of_processor_are_a_run_that_says_so(home, model, tmp_path, monkeypatch):
    (first,) = taken(home, tmp_path, "1")
    with monkeypatch.context() as patch:
        patch.setattr(processor, "_cpu", lambda: "an abacus")
        share(load("self-correction"), asked_for(home), first, shard=TWO, model=model, workers=1)
    report = finish(first, EXPERIMENTS)
    assert "several kinds of processor" in report.data["notes"][-1] and "on an abacus, " in report.data["notes"][-1]
    assert "several kinds of processor" in (first / "report.html").read_text()
    told = RunStore(first).facts()["processors"]
    assert len(told) == 2 and sum(told.values()) == 3 and RunStore(first).verify() == []
    assert (first / "results.parquet").read_bytes() == (home / "whole" / "results.parquet").read_bytes()


@pytest.mark.parametrize(
    ("error", "ends"),
    [("InterpError: it is not finite", True), ("RuntimeError: so", True), ("RunError: disk full", False), ("OSError: so", False)],
)
def test_a_twin_on_which_it_cannot_run_shows_nothing_and_one_that_may_yet_is_missing(error, ends, home, tmp_path):
    first, *_ = taken(home, tmp_path, "1", "2")
    merge([first, tmp_path / "2"], first)
    unit = next((home / "2" / "shards").iterdir())
    (first / "twin-0" / "shards" / unit.name).unlink()
    changed(first / "twin-0", status="failed", error=error)
    assert Watched(first, EXPERIMENTS).look().whole == ends
    if not ends:
        with pytest.raises(RunError, match=f"1 missing: twin-0/{unit.stem} .shard 2/2."):
            finish(first, EXPERIMENTS)
        return
    with pytest.warns(UserWarning, match=f"twin-0: {error}"):
        finish(first, EXPERIMENTS)
    assert RunStore(first).facts()["status"] == "complete"


@pytest.mark.parametrize("joined", [False, True])
def test_a_twin_that_cannot_be_made_is_waited_for_by_nobody(joined, home, model, tmp_path, monkeypatch):
    """Two shards in one folder, or in two; the run is then the one that the single process leaves."""

    def refused(model, number):
        raise ValueError("no weights can be drawn")

    monkeypatch.setattr(twins, "twin_of", refused)
    folders = [tmp_path / str(number if joined else 1) for number in (1, 2)]
    with pytest.warns(UserWarning, match="twin-0: no weights can be drawn"):
        experiment.run_and_report(load("self-correction"), asked_for(home), tmp_path / "whole", model=model, workers=1)
        for number, folder in enumerate(folders, 1):
            share(load("self-correction"), asked_for(home), folder, shard=Shard(number, 2), model=model, workers=1)
    merge(folders, tmp_path / "run")
    assert Watched(tmp_path / "run", EXPERIMENTS).look().whole
    with pytest.warns(UserWarning, match="twin-0: ValueError: no weights can be drawn"):
        finish(tmp_path / "run", EXPERIMENTS)
    assert content(tmp_path / "run") == content(tmp_path / "whole")


def test_units_of_other_versions_are_not_finished_unasked(home, tmp_path):
    (first,) = taken(home, tmp_path, "1")
    merge([first, home / "2"], first)
    old = {**changed(first)["versions"], "rules": "of another day"}
    changed(first, versions=old)
    with pytest.raises(RunError, match=r"version of rules: of another day, now .*--accept-versions"):
        finish(first, EXPERIMENTS)
    finish(first, EXPERIMENTS, accept_versions=True)
    assert RunStore(first).facts()["earlier"] == [old]


def test_an_input_that_was_edited_since_is_named(home, tmp_path):
    (first,) = taken(home, tmp_path, "1")
    merge([first, home / "2"], first)
    shutil.rmtree(first / "twin-0")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text((home / "prompts.jsonl").read_text().replace("ball", "cube"))
    changed(first, config={**changed(first)["config"], "prompts": str(prompts), "twins": 0}, parts=[])
    with pytest.raises(RunError, match=r"--prompts: entry .* has changed"):
        finish(first, EXPERIMENTS)


# --- pieces that need each other --------------------------------------------------------------------------------------

NEEDS = {"a": [], "b": [], "c": [], "d": ["a", "b", "c"], "e": ["a", "b", "c"], "f": ["d", "e"]}


def work(model, config, store, piece):
    for need in NEEDS[piece]:
        assert store.unit(need) is not None, f"{piece} began before {need} was there"
    if store.unit(piece) is None:
        unit = Unit([{"piece": piece}])
        store.add_unit(piece, unit.rows, unit.tensors, unit.facts)
    yield piece


ORDERED = Experiment(
    "ordered", SuiteConfig, lambda config: [(name, [name]) for name in NEEDS], work, lambda result, store: Report([], {}, ""),
    needs=lambda config, piece: NEEDS[piece], modelless=lambda config: True,
)  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_a_shard_that_is_alone_does_what_its_pieces_need(count, tmp_path):
    experiment.run(ORDERED, SuiteConfig(), tmp_path / "whole", workers=1)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole" / "shards").iterdir()}
    for number in range(1, count + 1):
        for folder in (tmp_path / "one", tmp_path / f"{count}-{number}"):
            done = share(ORDERED, SuiteConfig(), folder, shard=Shard(number, count), workers=1)
            units = {path.name: path.read_bytes() for path in (folder / "shards").iterdir()}
            assert units.items() <= whole.items() and len(units) == done.there >= done.own
    assert {path.name: path.read_bytes() for path in (tmp_path / "one" / "shards").iterdir()} == whole
    assert merge([tmp_path / f"{count}-{n}" for n in range(1, count + 1)], tmp_path / "joined").units == len(NEEDS)


def test_a_shard_that_has_done_its_own_computes_nothing_for_others(tmp_path):
    share(ORDERED, SuiteConfig(), tmp_path, shard=Shard(1, 4), workers=1)
    done = share(ORDERED, SuiteConfig(), tmp_path, shard=Shard(1, 4), workers=1)
    before = content(tmp_path)
    again = share(ORDERED, SuiteConfig(), tmp_path, shard=Shard(1, 4), workers=1)
    assert again == done and content(tmp_path) == before
