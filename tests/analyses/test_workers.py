"""Workers: everything is done once, errors come through, and none of them outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cos_interp.analyses.driver.workers import WorkerFailed, scatter

ROOT = Path(__file__).resolve().parents[2]


def work(piece):
    yield piece * 10
    if piece == 7:
        raise ValueError("seven")
    if piece == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    if piece == 9:
        os._exit(0)
    time.sleep(0.01)
    yield piece * 10 + 1


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_every_piece_is_done_once(workers):
    assert sorted(scatter(work, range(5), workers)) == sorted(10 * p + i for p in range(5) for i in range(2))


@pytest.mark.parametrize(("pieces", "error", "message"), [([1, 7], ValueError, "seven"), ([1, 8], WorkerFailed, "died"),
                                                          ([1, 9], WorkerFailed, "died")])  # fmt: skip
def test_an_error_and_a_lost_worker_are_noticed(pieces, error, message):
    with pytest.raises(error, match=message):
        list(scatter(work, pieces, 2))


def test_large_messages_of_several_workers_come_whole():
    found = list(scatter(lambda piece: iter([bytes([piece]) * 200_000] * 5), range(6), 2))
    assert sorted((m[0], len(set(m)), len(m)) for m in found) == sorted((p, 1, 200_000) for p in range(6) for _ in range(5))


def test_who_stops_listening_ends_the_workers():
    def slow(piece):
        yield os.getpid()
        time.sleep(60)

    began, found = time.monotonic(), scatter(slow, [1, 2], 2)
    worker = next(found)
    found.close()
    assert time.monotonic() - began < 30 and not alive(worker)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


PARENT = """
import os, sys, time
from cos_interp.analyses.driver.workers import scatter
def work(piece):
    yield os.getpid()
    for _ in range(int(sys.argv[1])):
        time.sleep(0.1)
        yield None
for message in scatter(work, [1, 2, 3, 4], 2):
    if message:
        print(message, flush=True)
"""


def started(tenths: int) -> tuple[subprocess.Popen, list[int]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    code = [sys.executable, "-c", PARENT, str(tenths)]
    parent = subprocess.Popen(
        code, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell ignores it in what it puts into the background
    )  # fmt: skip
    return parent, [int(parent.stdout.readline()) for _ in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent_however_it_ends(sign):
    parent, workers = started(600)
    parent.send_signal(sign)
    parent.wait(timeout=30)
    until = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(alive, workers))


@pytest.mark.slow
def test_a_parent_that_was_stopped_and_goes_on_finishes():
    parent, _ = started(5)
    parent.send_signal(signal.SIGSTOP)
    time.sleep(6)  # longer than the workers need
    parent.send_signal(signal.SIGCONT)
    assert len(parent.communicate(timeout=60)[0].split()) == 2 and parent.returncode == 0
