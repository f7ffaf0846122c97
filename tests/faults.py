"""Faults at the boundaries of a write: what happens when the process is killed, or the disk refuses, just there."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Act = Callable[[], None]


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(code: int) -> Act:
    """The disk's answer to everything from now on."""

    def refusing() -> None:
        raise OSError(code, os.strerror(code))

    return refusing


class Boundaries:
    """Counts the boundaries of :func:`files.write_atomic` (opened, half written, before and after the rename), and acts at one of
    them, and at all later ones where ``lasting``."""

    def __init__(self, act: Act, number: int, lasting: bool = False):
        self.act, self.number, self.lasting, self.count = act, number, lasting, 0

    def pass_one(self) -> None:
        self.count += 1
        if self.count == self.number or (self.lasting and self.count > self.number > 0):
            self.act()


class _Half:
    """A file that passes a boundary in the middle of a write."""

    def __init__(self, handle: Any, boundaries: Boundaries):
        self.handle, self.boundaries = handle, boundaries

    def write(self, data: bytes) -> None:
        self.handle.write(data[: len(data) // 2])
        self.handle.flush()
        self.boundaries.pass_one()
        self.handle.write(data[len(data) // 2 :])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.handle, name)

    def __enter__(self) -> _Half:
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.close()


@contextlib.contextmanager
def at_boundary(number: int, act: Act = kill, lasting: bool = False) -> Iterator[Boundaries]:
    """``act`` at the boundary of that number, counted from 1 over all writes of a block; at none for 0."""
    boundaries = Boundaries(act, number, lasting)
    opened, replaced = Path.open, Path.replace

    def opening(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        handle = opened(self, mode, *args, **kwargs)
        if mode != "xb":
            return handle
        boundaries.pass_one()
        return _Half(handle, boundaries)

    def replacing(self: Path, target: Path) -> Path:
        boundaries.pass_one()
        out = replaced(self, target)
        boundaries.pass_one()
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", opening)
        patch.setattr(Path, "replace", replacing)
        yield boundaries


def at_change(number: int, folder: Path, act: Act = kill) -> Boundaries:
    """``act`` before the change of that number below a folder, whoever makes it: opening a file for writing, making, renaming or
    removing something. To the end of this process, which should be a child."""
    boundaries = Boundaries(act, number)
    below = os.fspath(folder)

    def audit(event: str, given: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(given[1], str) and set(given[1]) & set("wax+")
        changes = writes or event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate")
        if changes and isinstance(given[0], str | os.PathLike) and os.fspath(given[0]).startswith(below):
            boundaries.pass_one()

    sys.addaudithook(audit)
    return boundaries


def child(work: Callable[[], Any]) -> int:
    """Run ``work`` in a fork of this process; its process id. It ends with exit code 1 for an error. Starting Python anew would
    take seconds each time. An interrupt waits until the fork's own ``try`` has begun: before that it would rise out of the copy
    of whatever runs the tests."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    return pid


def in_a_child(work: Callable[[], Any]) -> int:
    """:func:`child`, waited for; its wait status."""
    return os.waitpid(child(work), 0)[1]


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by name."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
