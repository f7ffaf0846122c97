"""Several processes over independent pieces of work. On a CPU, two of one thread each beat one of two threads."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Work = Callable[[Any], Iterator[Any]]  # a piece -> messages


class WorkerFailed(RuntimeError):
    """A worker raised or died; the message is its error, ``__notes__`` holds its traceback."""


def default_workers() -> int:
    """One process a core where forking keeps the loaded model, else one."""
    import torch

    if torch.cuda.is_available() or not sys.platform.startswith("linux"):
        return 1
    return max(1, len(os.sched_getaffinity(0)))


def scatter(work: Work, pieces: Sequence[Any], workers: int) -> Iterator[Any]:
    """Run ``work`` on every piece and yield its messages as they come. With one worker: here, in order.

    The forked children inherit the model without a copy and compute with one thread each. An interrupt ends the children at
    once; what they had stored stays.
    """
    if workers <= 1 or len(pieces) <= 1:
        for piece in pieces:
            yield from work(piece)
        return
    context = multiprocessing.get_context("fork")
    todo, done = context.Queue(), context.Queue()
    for piece in pieces:
        todo.put(piece)
    processes = [context.Process(target=_serve, args=(work, todo, done), daemon=True) for _ in range(workers)]
    for process in processes:
        process.start()
    try:
        yield from _gather(done, processes, len(pieces))
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _gather(done: Any, processes: list, left: int) -> Iterator[Any]:
    while left:
        try:
            kind, value = done.get(timeout=1)
        except queue.Empty:
            dead = [p for p in processes if p.exitcode not in (None, 0)]
            if dead:
                raise WorkerFailed(f"a worker process died (exit code {dead[0].exitcode}); run again to continue") from None
            continue
        if kind == "error":
            error, trace = value
            error.add_note(trace)
            raise error
        if kind == "end":
            left -= 1
        else:
            yield value


def _serve(work: Work, todo: Any, done: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    import torch

    torch.set_num_threads(1)  # numba (UMAP) in the parent may have raised it, and a forked thread pool has no threads
    # a lock on the parent's streams may have been held by its progress bar at the moment of the fork
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    while True:
        try:
            piece = todo.get(timeout=0.5)
        except queue.Empty:
            return
        try:
            for message in work(piece):
                done.put(("message", message))
            done.put(("end", None))
        except Exception as error:
            trace = traceback.format_exc()
            try:
                done.put(("error", (error, trace)))
            except Exception:
                done.put(("error", (WorkerFailed(str(error)), trace)))
            return
