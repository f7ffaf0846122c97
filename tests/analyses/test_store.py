"""The run folder: atomic, resumable, verifiable, and honest about damage."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cos_interp.analyses.driver.facts import Facts
from cos_interp.analyses.driver.store import RunError, RunStore
from cos_interp.interp import files

ROOT = Path(__file__).resolve().parents[2]
FACTS = {"analysis": "test", "config": {"a": 1}}


class Count(Facts):
    n: int


def filled(folder: Path, units: int = 3) -> RunStore:
    store = RunStore.open(folder, FACTS, kinds=(Count,))
    for i in range(units):
        store.add_unit(f"u{i}", [{"i": i}], {"latents": torch.full((2,), float(i))}, Count(n=i))
    store.write_results(pd.DataFrame({"i": range(units)}))
    store.complete(FACTS)
    return store


def test_units_come_back(tmp_path):
    store = filled(tmp_path / "run")
    assert store.unit("u1") == ([{"i": 1}], Count(n=1))
    assert torch.equal(store.tensors("u2")["latents"], torch.full((2,), 2.0))
    assert store.unit("other") is None
    assert store.verify() == []


class Renamed(Facts):
    number: int


Renamed.__name__ = "Count"


@pytest.mark.parametrize(
    ("kinds", "said"),
    [((), "u1 of .*run holds Count, and can hold Facts, "), ((Renamed,), "u1 of .*run does not hold .*number: Field required")],
)
def test_facts_that_do_not_fit_are_an_error_that_names_the_run_and_the_field(tmp_path, kinds, said):
    store = filled(tmp_path / "run")
    with pytest.raises(RunError, match=said):
        RunStore(store.folder, kinds).unit("u1")
    assert store.unit("u1") is not None  # it is not damaged: nothing is deleted


def test_facts_are_as_they_were_whatever_numbers_they_hold(tmp_path):
    class Level(Facts):
        value: float

    store = RunStore.open(tmp_path / "run", FACTS, kinds=(Level,))
    store.add_unit("u0", [], {}, Level(value=float("nan")))
    _, facts = store.finished("u0")
    assert isinstance(facts, Level) and facts.value != facts.value
    with pytest.raises(RunError, match=r"u7 of .* is missing or damaged: run the same command again"):
        store.finished("u7")


def test_a_run_of_other_settings_is_refused_unless_fresh(tmp_path):
    filled(tmp_path / "run")
    with pytest.raises(RunError, match=r"config.*--fresh"):
        RunStore.open(tmp_path / "run", {**FACTS, "config": {"a": 2}})
    store = RunStore.open(tmp_path / "run", {**FACTS, "config": {"a": 2}}, fresh=True)
    assert store.unit("u0") is None
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    for fresh in (False, True):  # --fresh never deletes a folder that is no run
        with pytest.raises(RunError, match="not empty"):
            RunStore.open(tmp_path / "home", FACTS, fresh=fresh)
    assert (tmp_path / "home" / "thesis.tex").exists()


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_every_damage_is_found(tmp_path_factory, data):
    store = filled(tmp_path_factory.mktemp("runs") / "run")
    listed = [json.loads(line)["file"] for line in (store.folder / "manifest.jsonl").read_text().splitlines()]
    path = store.folder / data.draw(st.sampled_from(listed))
    content = bytearray(path.read_bytes())
    how = data.draw(st.sampled_from(["flip", "truncate", "delete"]))
    if how == "flip":
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
    elif how == "truncate":
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    else:
        path.unlink()
    assert len(store.verify()) == 1


def test_a_truncated_unit_is_computed_again(tmp_path):
    store = filled(tmp_path / "run")
    path = store.unit_path("u0")
    path.write_bytes(path.read_bytes()[:20])
    assert store.unit("u0") is None and not path.exists()


def test_a_manifest_cannot_lead_out_of_the_folder(tmp_path):
    store = filled(tmp_path / "run")
    (store.folder / "manifest.jsonl").write_text(json.dumps({"file": "../../etc/passwd", "sha256": "0"}) + "\n")
    assert "leads out" in store.verify()[0]


def test_atomic_write_survives_errors(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_atomic(path, b"old")

    def full(*args):
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as m:
            m.setattr(os, "fsync", full) if name == "fsync" else m.setattr(Path, "replace", full)
            with pytest.raises(OSError, match="No space"):
                files.write_atomic(path, b"new")
        assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["file"]


WRITER = """
import sys, time, torch, pandas
sys.path.insert(0, {root!r} + "/src")
from pathlib import Path
from cos_interp.analyses.driver.facts import Facts
from cos_interp.analyses.driver.store import RunStore
facts = {facts!r}
store = RunStore.open(Path({folder!r}), facts)
for i in range(12):
    if store.unit(f"u{{i}}") is None:
        store.add_unit(f"u{{i}}", [{{"i": i}}], {{"latents": torch.full((2000,), float(i))}}, Facts())
        print(i, flush=True)
        time.sleep(0.02)
store.write_results(pandas.DataFrame({{"i": range(12)}}))
store.complete(facts)
"""


def test_a_run_killed_twice_ends_with_the_same_bytes(tmp_path):
    def start(folder):
        code = WRITER.format(root=str(ROOT), facts=FACTS, folder=str(folder))
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(whole).wait() == 0
    for kills in (2, 5):
        process = start(broken)
        for _ in range(kills):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert RunStore(broken).facts()["status"] == "running"
        assert RunStore(broken).verify()
    assert start(broken).wait() == 0
    names = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(broken) for p in broken.rglob("*") if p.is_file())
    assert all((whole / n).read_bytes() == (broken / n).read_bytes() for n in names)


def test_a_full_disk_is_one_clear_error_and_the_run_goes_on_later(tmp_path):
    store = RunStore.open(tmp_path / "run", FACTS)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(RunError, match=r"u0.*can be continued"):
            store.add_unit("u0", [], {"latents": torch.zeros(4000)}, Facts())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert store.unit("u0") is None and not list((store.folder / "shards").iterdir())
    store.add_unit("u0", [], {"latents": torch.zeros(4000)}, Facts())
    assert store.unit("u0") is not None


def test_no_permission_is_one_clear_error(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(RunError, match="cannot write"):
        RunStore.open(blocker / "run", FACTS)


def test_worker_pool_yields_everything_and_passes_errors_on():
    from cos_interp.analyses.driver.workers import WorkerFailed, scatter

    def work(piece):
        yield piece * 10
        if piece == 7:
            raise ValueError("seven")
        if piece == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        yield piece * 10 + 1

    assert sorted(scatter(work, range(5), 2)) == sorted(10 * p + i for p in range(5) for i in range(2))
    with pytest.raises(ValueError, match="seven"):
        list(scatter(work, [1, 7], 2))
    with pytest.raises(WorkerFailed, match="died"):
        list(scatter(work, [1, 8], 2))
