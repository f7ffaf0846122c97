"""Several processes over independent pieces of work. On a CPU, two of one thread each beat one of two threads."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Lock
from typing import Any

Work = Callable[[Any], Iterator[Any]]  # a piece -> messages


class WorkerFailed(RuntimeError):
    """A worker process died with work undone."""


def default_workers() -> int:
    """One process a core where forking keeps the loaded model, else one."""
    import torch

    if torch.cuda.is_available() or not sys.platform.startswith("linux"):
        return 1
    return max(1, len(os.sched_getaffinity(0)))


def scatter(work: Work, pieces: Sequence[Any], workers: int) -> Iterator[Any]:
    """Run ``work`` on every piece and yield its messages as they come. With one worker: here, in order.

    The children are forked: they inherit the model without a copy, also one that a script made, and begin at once. Spawned, each
    would import everything and load the model first (6 CPU seconds for the organism), and would outlive a parent that is killed
    meanwhile by up to 11 seconds, which forked ones do by 2 at most. They compute with one thread each.

    They end with this process however it ends, and at once when the caller stops; what they had stored stays. An error of a piece
    is raised here, with the worker's traceback as its cause; WorkerFailed when a worker is gone.
    """
    if workers <= 1 or len(pieces) <= 1:
        for piece in pieces:
            yield from work(piece)
        return
    import torch  # noqa: F401  before the fork, once for all

    context = multiprocessing.get_context("fork")
    messages, sender = context.Pipe(duplex=False)
    leash, held = context.Pipe(duplex=False)
    child = _Child(work, pieces, sender, context.Lock(), leash, held)
    with ProcessPoolExecutor(min(workers, len(pieces)), context, initializer=_begin, initargs=(child,)) as pool:
        try:
            futures = [pool.submit(_do, number) for number in range(len(pieces))]
            sender.close()
            yield from _gather(messages, futures)
        except BrokenProcessPool:
            raise WorkerFailed("a worker process died; run the same command again to continue") from None
        finally:
            held.close()  # the children are let go
            pool.shutdown(cancel_futures=True)


def _gather(messages: Connection, futures: list[Future]) -> Iterator[Any]:
    left = set(futures)
    while left:
        yield from _received(messages, 0.1)
        for future in [f for f in left if f.done()]:
            future.result()
            left.remove(future)
    yield from _received(messages, 0)


def _received(messages: Connection, seconds: float) -> Iterator[Any]:
    try:
        while messages.poll(seconds):
            yield messages.recv()
    except EOFError:  # no worker is left, which the futures say
        return


# --- in a worker -----------------------------------------------------------------------------------------------------


class _Child:
    """What a worker inherits. ``held``: the parent's end of the leash, which a worker must not hold itself."""

    def __init__(self, work: Work, pieces: Sequence[Any], sender: Connection, lock: Lock, leash: Connection, held: Connection):
        self.work, self.pieces, self.sender, self.lock, self.leash, self.held = work, pieces, sender, lock, leash, held


_child: _Child


def _begin(child: _Child) -> None:
    global _child
    _child = child
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for warning in (signal.SIGUSR1, signal.SIGUSR2):  # a scheduler's, that the job will end: it is the parent's to answer
        signal.signal(warning, signal.SIG_IGN)
    child.held.close()
    threading.Thread(target=_end_with_the_parent, args=(child.leash,), daemon=True).start()
    import torch

    torch.set_num_threads(1)  # numba (UMAP) in the parent may have raised it, and a forked thread pool has no threads
    # a lock on the parent's streams may have been held by its progress bar at the moment of the fork
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _end_with_the_parent(leash: Connection) -> None:
    leash.poll(None)  # nothing is ever sent: it returns when the other end is gone
    os._exit(1)


def _do(number: int) -> None:
    for message in _child.work(_child.pieces[number]):
        with _child.lock:
            _child.sender.send(message)
