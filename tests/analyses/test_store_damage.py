"""A damaged run is named, never used, and never signed anew; in any order of writing, killing and damaging."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from faults import content
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule
from stores import asked, fill

from cos_interp.analyses.driver import lock, manifest
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.overview import overview
from cos_interp.analyses.driver.store import RunStore
from cos_interp.interp import files

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


def test_a_pipe_in_the_place_of_a_file_is_named_and_blocks_nobody(folder):
    store, whole = RunStore(folder), content(folder)
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it blocks"))
    signal.alarm(60)
    try:
        for name in (*whole, lock.OWNER):
            path = folder / name
            path.unlink(missing_ok=True)
            os.mkfifo(path)
            assert any(name in problem for problem in store.verify()) and lock.owner(folder) is None
            with contextlib.suppress(RunError):
                assert overview(folder).status != "complete" or name != "run.json"
                store.unit("u1")
                store.read("results.parquet")
            path.unlink()
            if name in whole:
                path.write_bytes(whole[name])
        os.mkfifo(folder / "shards" / "u9.safetensors")
        with pytest.raises(RunError, match="not a regular file"):
            store.unit("u9")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


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
