"""Writing a run: whole or not at all, by one writer, and honest about a full disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from faults import at_boundary, content, in_a_child
from hypothesis import given
from hypothesis import strategies as st
from stores import ASKED, ROOT, asked, fill

from cos_interp.analyses.driver import lock
from cos_interp.analyses.driver.errors import RunError, Taken
from cos_interp.analyses.driver.facts import Facts, LeftOut
from cos_interp.analyses.driver.store import RunStore
from cos_interp.interp import files

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


def test_a_run_json_that_cannot_be_read_is_not_called_damaged(folder, monkeypatch):
    """A passing error of the disk: who is told to start again with --fresh loses the run."""
    before = content(folder)
    read = Path.read_bytes

    def failing(path):
        if path.name == "run.json":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", failing)
        for asks in (RunStore(folder).facts, lambda: fill(folder, facts=asked(a=2))):
            with pytest.raises(
                RunError, match=r"run\.json cannot be read: Input/output error$|^cannot write to .*: Input/output error"
            ):
                asks()
    assert content(folder) == before


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
    with pytest.raises(Taken, match=r"process 1 on elsewhere since noon: .* if that machine is gone, delete \.owner\.json there"):
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


def test_a_run_whose_facts_are_lost_meanwhile_ends_with_the_same_bytes(tmp_path):
    fill(tmp_path / "whole")
    for lose in (lambda path: path.unlink(), lambda path: path.write_bytes(b"{")):
        folder = tmp_path / f"run{lose.__code__.co_firstlineno}{lose.__code__.co_names}"
        with contextlib.suppress(ValueError), RunStore.open(folder, ASKED) as store:
            store.add_unit("u0", [{"i": 0}], {"latents": torch.full((2,), 0.0)}, LeftOut(reason="it is 0"))
            lose(folder / "run.json")
            store.add_unit("u1", [{"i": 1}], {"latents": torch.full((2,), 1.0)}, LeftOut(reason="it is 1"))
            assert store.unit("u0") is not None and store.unit("u1") is not None
            raise ValueError("boom")
        assert RunStore(folder).facts()["status"] == "failed"
        assert fill(folder) == [2] and content(folder) == content(tmp_path / "whole")


def test_a_run_json_that_lacks_something_is_damaged(folder):
    held = files.read_sealed_json((folder / "run.json").read_bytes())
    for key in ("format", "config", "versions"):
        (folder / "run.json").write_bytes(files.sealed_json({k: v for k, v in held.items() if k != key}))
        with pytest.raises(RunError, match=f"damaged .it has no {key}.: start again with --fresh"):
            fill(folder)
    assert fill(folder, fresh=True) == [0, 1, 2]


def test_a_writers_heart_beats(folder, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with lock.Writer(folder).holding():
        os.utime(folder / lock.OWNER, (0, 0))
        until = time.time() + 20
        while (folder / lock.OWNER).stat().st_mtime < 1 and time.time() < until:
            time.sleep(0.01)
        assert (folder / lock.OWNER).stat().st_mtime > 1
