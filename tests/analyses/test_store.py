"""The run folder: atomic, sealed, resumable, verifiable, one writer, and honest about damage."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from faults import at_boundary, content, in_a_child
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from cos_interp.analyses.driver import lock, manifest
from cos_interp.analyses.driver.errors import RunError, Taken
from cos_interp.analyses.driver.facts import Facts, LeftOut, RunFacts
from cos_interp.analyses.driver.store import RunStore
from cos_interp.interp import files

ROOT = Path(__file__).resolve().parents[2]
MODEL = {"name": "m", "digest": "0", "parts": {"transformer": "0"}}
ASKED = {
    "format": 2, "analysis": "test", "command": "cos analyze test", "config": {"a": 1, "items": 3, "prompts": None},
    "model": MODEL, "inputs": {}, "versions": {"torch": "2"},
}  # fmt: skip


def asked(**config) -> dict:
    return {**ASKED, "config": {**ASKED["config"], **config}}


def fill(folder: Path, units: int = 3, facts: dict = ASKED, **options) -> list[int]:
    """A run of small units, or what is missing of it; the units that were made."""
    made = []
    with RunStore.open(folder, facts, **options) as store:
        for i in range(units):
            if store.unit(f"u{i}") is None:
                store.add_unit(f"u{i}", [{"i": i}], {"latents": torch.full((2,), float(i))}, LeftOut(reason=f"it is {i}"))
                made.append(i)
        store.write_results(pd.DataFrame({"i": range(units)}))
        store.write_page({"report.html": b"<p>" + str(units).encode(), "findings.json": b"[]\n", "media/a.svg": b"<svg/>"})
        store.complete()
    return made


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path / "run")
    return tmp_path / "run"


def test_units_come_back(folder):
    store = RunStore(folder)
    assert store.unit("u1") == ([{"i": 1}], LeftOut(reason="it is 1"))
    assert torch.equal(store.tensors("u2")["latents"], torch.full((2,), 2.0))
    assert store.unit("other") is None and store.verify() == []
    assert fill(folder) == [] and store.verify() == []
    assert sorted(content(folder)) == sorted(
        ["run.json", "manifest.jsonl", "page.json", "results.parquet", "report.html", "findings.json", "media/a.svg",
         *(f"shards/u{i}.safetensors" for i in range(3))]
    )  # fmt: skip


def test_a_unit_says_what_it_is_or_is_refused(tmp_path):
    class Other(Facts):
        count: int

    with RunStore.open(tmp_path / "run", ASKED, kinds=(Other,)) as store:
        store.add_unit("u", [], {}, Other(count=3))
        assert store.finished("u")[1] == Other(count=3)
    with pytest.raises(RunError, match=r"holds Other, and can hold Facts, RunFacts, LeftOut"):
        RunStore(tmp_path / "run").unit("u")
    with pytest.raises(RunError, match=r"unit none of .* is missing or damaged"):
        RunStore(tmp_path / "run").finished("none")
    assert RunFacts.model_validate({"sigmas": [1.0], "prompt": "p"}).axes == {}


# --- identity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"config": {**ASKED["config"], "a": 2}}, "--a: 1, now 2"),
        ({"config": {**ASKED["config"], "items": 2}}, "--items: 3, now 2"),
        ({"model": {**MODEL, "parts": {"transformer": "1"}}}, "the model: other transformer"),
        ({"inputs": {"--prompts": {"entry 1": "0"}}}, "--prompts: entry 1 is new"),
        ({"versions": {"torch": "3"}}, "version of torch: 2, now 3 .*--accept-versions"),
        ({"analysis": "x"}, "analysis: test, now x"),
    ],
)  # fmt: skip
def test_what_changed_is_named_and_nothing_is_touched(folder, change, named):
    before = content(folder)
    with pytest.raises(RunError, match=named):
        fill(folder, facts={**ASKED, **change})
    assert content(folder) == before
    fill(folder, facts={**ASKED, **change}, fresh=True)
    assert RunStore(folder).verify() == []


def test_a_file_with_another_content_is_another_run(tmp_path):
    held = {**ASKED, "inputs": {"--prompts": {"entry 1": "0", "entry 2": "1"}}}
    fill(tmp_path / "run", facts=held)
    assert fill(tmp_path / "run", facts=held) == []
    for now, named in (({"entry 1": "5", "entry 2": "1"}, "entry 1 has changed"), ({"entry 1": "0"}, "entry 2 is gone")):
        with pytest.raises(RunError, match=f"--prompts: {named}"):
            fill(tmp_path / "run", facts={**ASKED, "inputs": {"--prompts": now}})


def test_an_interrupted_run_is_not_lost_to_another_command(tmp_path):
    with pytest.raises(KeyboardInterrupt), RunStore.open(tmp_path / "run", ASKED) as store:
        store.add_unit("u0", [], {}, Facts())
        raise KeyboardInterrupt
    before = content(tmp_path / "run")
    with pytest.raises(RunError, match="--a: 1, now 2"):
        fill(tmp_path / "run", facts=asked(a=2))
    assert content(tmp_path / "run") == before and store.facts()["status"] == "running"
    assert fill(tmp_path / "run") == [1, 2]


def test_what_a_killed_write_left_behind_is_taken_away(folder):
    whole = content(folder)
    for name in ("", "shards", "media"):
        (folder / name / files.TEMPORARY.format("0" * 16)).write_bytes(b"half")
    assert len(RunStore(folder).verify()) == 3
    assert fill(folder) == [] and content(folder) == whole


def test_names_do_not_count_and_versions_may_be_accepted(folder):
    other = {
        **ASKED,
        "model": {**MODEL, "name": "./copy"},
        "versions": {"torch": "3"},
        "config": {**ASKED["config"], "model": "./copy"},
    }
    assert fill(folder, facts=other, accept_versions=True) == [] and RunStore(folder).facts()["versions"] == {"torch": "3"}


def test_items_may_grow_and_what_is_made_of_units_is_made_again(folder, tmp_path):
    assert fill(folder, 5, asked(items=5), derived=["u0"]) == [0, 3, 4]
    fill(tmp_path / "whole", 5, asked(items=5))
    assert content(folder) == content(tmp_path / "whole")


def test_a_failed_run_says_why_and_a_repaired_input_starts_anew(tmp_path):
    wrong = {**ASKED, "inputs": {"--prompts": {"entry 1": "0"}}}
    with pytest.raises(ValueError, match="boom"), RunStore.open(tmp_path / "run", wrong) as store:
        store.add_unit("u0", [], {}, Facts())
        raise ValueError("boom")
    assert (store.facts()["status"], store.facts()["error"]) == ("failed", "ValueError: boom")
    assert "failed" in store.verify()[0]
    assert fill(tmp_path / "run") == [0, 1, 2] and "error" not in store.facts()


# --- nothing foreign is touched ---------------------------------------------------------------------------------------


def test_fresh_takes_only_what_is_ours(folder, tmp_path):
    for name in ("notes.txt", "shards/mine.txt", "media/mine.mp4", "sub/run.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
        before = content(folder)
        with pytest.raises(RunError, match=f"would delete {name}"):
            fill(folder, facts=asked(a=2), fresh=True)
        assert content(folder) == before
        (folder / name).unlink()
        if name.startswith("sub"):
            (folder / "sub").rmdir()
    fill(folder, facts=asked(a=2), fresh=True)
    for name, held in (("run.json", '{"my": "project"}'), ("thesis.tex", "x")):
        home = tmp_path / name
        home.mkdir()
        (home / name).write_text(held)
        for fresh in (False, True):
            with pytest.raises(RunError, match=r"choose another --out"):
                fill(home, fresh=fresh)
            assert content(home) == {name: held.encode()}


def test_a_run_is_removed_with_what_is_its_own(folder):
    (folder / "notes.txt").write_text("x")
    with pytest.raises(RunError, match="no run"):
        RunStore(folder / "media").remove()
    RunStore(folder).remove()
    assert content(folder) == {"notes.txt": b"x"}


@pytest.mark.parametrize("left", [b"", b"\0" * 100, b"\n"])
def test_a_run_json_that_a_disk_emptied_has_a_way_out(folder, left):
    (folder / "run.json").write_bytes(left)
    with pytest.raises(RunError, match=r"damaged .*: start again with --fresh"):
        fill(folder)
    (folder / "notes.txt").write_text("x")  # with something else beside it, it may be somebody's own
    for way in (lambda: fill(folder, fresh=True), RunStore(folder).remove):
        with pytest.raises(RunError, match="was not written by this tool"):
            way()
    (folder / "notes.txt").unlink()
    assert fill(folder, fresh=True) == [0, 1, 2] and RunStore(folder).verify() == []
    (folder / "run.json").write_bytes(left)
    RunStore(folder).remove()
    assert not folder.exists()


def test_a_folder_in_the_place_of_a_file_is_not_ours(folder):
    (folder / "results.parquet").unlink()
    (folder / "results.parquet").mkdir()
    (folder / "results.parquet" / "mine").write_text("x")
    with pytest.raises(RunError, match=r"would delete results.parquet"):
        fill(folder, fresh=True)
    RunStore(folder).remove()
    assert content(folder) == {"results.parquet/mine": b"x"}


def test_a_page_drawn_again_is_sealed_again_and_the_rest_is_not_touched(folder):
    before = content(folder)
    with lock.Writer(folder).holding() as writer:
        RunStore(folder, writer=writer).write_page({"report.html": b"new", "findings.json": b"[]\n", "media/b.svg": b"<svg/>"})
    after = content(folder)
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert changed == {"report.html", "media/a.svg", "media/b.svg", "page.json"} and RunStore(folder).verify() == []


# --- damage -----------------------------------------------------------------------------------------------------------


def test_every_byte_flipped_and_every_file_cut_deleted_or_added_is_found(folder):
    store, whole = RunStore(folder), content(folder)
    for name, data in whole.items():
        path = folder / name
        for place in range(len(data)):
            path.write_bytes(data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :])
            assert store.verify(), f"byte {place} of {name}"
        for length in {0, 1, len(data) // 2, len(data) - 1}:
            path.write_bytes(data[:length])
            assert store.verify(), f"{name} cut to {length}"
        path.unlink()
        assert store.verify(), f"{name} deleted"
        path.write_bytes(data)
    for name in ("more", "shards/u9.safetensors", "shards/x", "media/x.png", ".x.tmp", "deep/er/x", lock.LOCK):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
        assert store.verify(), f"{name} added"
        (folder / name).unlink()
        shutil.rmtree(folder / "deep", ignore_errors=True)
    assert store.verify() == []


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_unit_is_never_used(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("runs") / "run"
    fill(folder)
    whole = content(folder)
    path = folder / "shards" / "u1.safetensors"
    damaged = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
    path.write_bytes(damaged)
    store = RunStore(folder)
    assert store.damaged(["u0", "u1", "none"]) == ["u1"] and store.unit("u1") is None
    with pytest.raises(RunError, match="u1"):
        store.tensors("u1")
    assert fill(folder) == [1] and content(folder) == whole


def test_a_changed_file_of_a_finished_run_is_not_read(folder):
    assert RunStore(folder).read("findings.json") == b"[]\n"
    (folder / "findings.json").write_bytes(b"[] \n")
    with pytest.raises(RunError, match=r"findings\.json has been changed"):
        RunStore(folder).read("findings.json")


def test_a_unit_of_another_name_or_run_is_not_this_one(folder, tmp_path):
    whole = content(folder)
    fill(tmp_path / "other", facts=asked(a=7))
    units = folder / "shards"
    for source in (units / "u2.safetensors", tmp_path / "other" / "shards" / "u1.safetensors"):
        (units / "u1.safetensors").write_bytes(source.read_bytes())
        store = RunStore(folder)
        assert store.damaged(["u0", "u1", "u2"]) == ["u1"] and store.unit("u1") is None
        with pytest.raises(RunError, match=r"unit u1 .* damaged"):
            store.finished("u1")
        assert fill(folder) == [1] and content(folder) == whole


def test_a_unit_that_is_none_of_the_run_and_a_link_are_refused(folder, tmp_path):
    store = RunStore(folder)
    store.refuse_others(["u0", "u1", "u2"])
    with pytest.raises(RunError, match=r"u2.safetensors is no unit of this run"):
        store.refuse_others(["u0", "u1"])
    (folder / "shards").rename(tmp_path / "elsewhere")
    (folder / "shards").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="shards is a link"):
        fill(folder)


def test_a_list_that_was_forged_leads_nowhere(folder):
    forged = [json.dumps({"file": "../../etc/passwd", "sha256": files.digest(Path("/etc/passwd")), "bytes": 1})]
    lines = ("\n".join(forged) + "\n").encode()
    (folder / "manifest.jsonl").write_bytes(lines)
    facts = {**RunStore(folder).facts(), "root": manifest.root(lines)}
    (folder / "run.json").write_bytes(files.sealed_json(facts))
    assert "../../etc/passwd is missing" in RunStore(folder).verify()


# --- writing ----------------------------------------------------------------------------------------------------------


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


def test_many_writers_of_one_path_do_not_disturb_each_other(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    path = tmp_path / "file"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: files.write_atomic(path, bytes([n]) * 5000), range(200)))
    assert len(set(path.read_bytes())) == 1 and [p.name for p in tmp_path.iterdir()] == ["file"]


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=4)), st.data())
def test_a_seal_comes_back_and_holds_every_byte(value, data):
    value.pop("seal", None)
    made = files.sealed_json(value)
    assert files.read_sealed_json(made) == value
    place, bit = data.draw(st.integers(0, len(made) - 1)), data.draw(st.integers(0, 7))
    assert not files.is_intact(made[:place] + bytes([made[place] ^ 1 << bit]) + made[place + 1 :])
    assert not files.is_intact(made[:place]) and not files.is_intact(made + b" ")


@pytest.mark.slow
def test_a_kill_at_every_write_boundary_leaves_a_run_that_ends_with_the_same_bytes(tmp_path):
    with at_boundary(0) as boundaries:
        fill(tmp_path / "whole")
    whole = content(tmp_path / "whole")
    assert boundaries.count >= 11 * 4  # eleven files
    for killed in range(1, boundaries.count + 1):
        folder = tmp_path / f"run{killed}"

        def work(folder=folder, killed=killed):
            with at_boundary(killed):
                fill(folder)

        assert os.WIFSIGNALED(in_a_child(work))
        fill(folder)
        assert content(folder) == whole, f"boundary {killed}"


def test_a_full_disk_is_one_clear_error_and_the_run_goes_on_later(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with RunStore.open(tmp_path / "run", ASKED) as store:
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
        fill(blocker / "run")


# --- one writer -------------------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
sys.path.insert(0, {root!r} + "/src")
from pathlib import Path
from cos_interp.analyses.driver.lock import Writer
with Writer(Path({folder!r})).holding():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_and_a_dead_one_is_succeeded(folder):
    code = HOLDER.format(root=str(ROOT), folder=str(folder))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        for stopped in (False, True):
            if stopped:
                holder.send_signal(signal.SIGSTOP)
            for fresh in (False, True):
                with pytest.raises(Taken, match=f"is being written by process {holder.pid} on "):
                    fill(folder, fresh=fresh)
        holder.kill()
    assert fill(folder) == [] and RunStore(folder).verify() == []


def test_another_machines_writer_counts_while_its_heart_beats(folder, monkeypatch):
    (folder / lock.OWNER).write_text(json.dumps({"token": "t", "host": "elsewhere", "pid": 1, "since": "noon"}))
    with pytest.raises(Taken, match="process 1 on elsewhere since noon"):
        fill(folder)
    long_ago = time.time() - lock.SILENT - 1
    os.utime(folder / lock.OWNER, (long_ago, long_ago))
    assert fill(folder) == []


def test_who_was_taken_over_writes_no_more(folder):
    with pytest.raises(Taken, match="taken over by process 1 on elsewhere"), RunStore.open(folder, ASKED) as store:
        (folder / lock.OWNER).write_text(json.dumps({"token": "t", "host": "elsewhere", "pid": 1}))
        store.add_unit("u0", [], {}, Facts())
    assert lock.owner(folder) == {"token": "t", "host": "elsewhere", "pid": 1}  # who took over is not signed off


def test_a_folder_that_was_removed_is_said_to_be(folder):
    with pytest.raises(RunError, match="was removed while this process was writing it"), RunStore.open(folder, ASKED) as store:
        shutil.rmtree(folder)
        store.add_unit("u0", [], {}, Facts())


def test_a_writers_heart_beats(folder, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with lock.Writer(folder).holding():
        os.utime(folder / lock.OWNER, (0, 0))
        until = time.time() + 20
        while (folder / lock.OWNER).stat().st_mtime < 1 and time.time() < until:
            time.sleep(0.01)
        assert (folder / lock.OWNER).stat().st_mtime > 1


# --- all together -----------------------------------------------------------------------------------------------------


class Folder(RuleBasedStateMachine):
    """Writing, killing, damaging, deleting and verifying in any order: a run is complete and right, or says what is wrong."""

    spoiled = Bundle("spoiled")

    def __init__(self):
        super().__init__()
        import tempfile

        self.home = tempfile.TemporaryDirectory()
        self.folder, self.items, self.whole = Path(self.home.name) / "run", 0, {}

    def teardown(self):
        self.home.cleanup()

    @rule(more=st.integers(1, 2))
    def run(self, more):
        self.items = min(6, self.items + more)
        self._fill()
        self.whole = content(self.folder)

    def _fill(self):
        """The command; where its own ``run.json`` is damaged it says so, and --fresh helps."""
        try:
            fill(self.folder, self.items, asked(items=self.items))
        except RunError as error:
            assert "run.json is damaged" in str(error)
            fill(self.folder, self.items, asked(items=self.items), fresh=True)

    @rule(at=st.integers(0, 12), more=st.integers(0, 1))
    def killed(self, at, more):
        """A run that ends at some write, as a kill does: nothing is put in order afterwards."""
        self.items, writes = max(1, min(6, self.items + more)), iter(range(at))
        whole = files.write_atomic

        def write(path, data):
            if next(writes, None) is None:
                path.with_name(files.TEMPORARY.format("0" * 16)).write_bytes(data[: len(data) // 2])
                raise KeyboardInterrupt
            whole(path, data)

        from cos_interp.analyses.driver import store

        store.write_atomic = write
        try:
            self._fill()
            self.whole = content(self.folder)
        except KeyboardInterrupt:
            self.whole = {}
        finally:
            store.write_atomic = whole

    @precondition(lambda self: self.whole)
    @rule(target=spoiled, data=st.data())
    def spoil(self, data):
        name = data.draw(st.sampled_from(sorted(self.whole)))
        path = self.folder / name
        if not path.is_file() or path.read_bytes() != self.whole[name]:
            return multiple()
        held = bytearray(path.read_bytes())
        held[data.draw(st.integers(0, len(held) - 1))] ^= 1
        path.write_bytes(held)
        assert RunStore(self.folder).verify()
        return name

    @rule(name=consumes(spoiled))
    def repair(self, name):
        if name in self.whole:
            (self.folder / name).write_bytes(self.whole[name])

    @rule()
    def again(self):
        """The same command makes it right."""
        if not self.items or not self.folder.exists():
            return
        self._fill()
        self.whole = content(self.folder)
        assert RunStore(self.folder).verify() == []

    @invariant()
    def complete_means_right(self):
        if self.whole and RunStore(self.folder).verify() == []:
            assert content(self.folder) == self.whole


TestFolder = Folder.TestCase
TestFolder.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
