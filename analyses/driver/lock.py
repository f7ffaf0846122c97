"""One writer a run folder: a lock that ends with its process, and says who holds it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from cos_interp.analyses.driver.errors import RunError, Taken
from cos_interp.interp.files import read_regular

LOCK, OWNER = ".lock", ".owner.json"
FILES = (LOCK, OWNER)
BEAT = 10.0  # seconds between heartbeats
SILENT = 120.0  # seconds without one after which another machine's writer counts as gone


class Writer:
    """The right to write a run folder. The operating system's lock decides on one machine, however its holder ends; where a
    file system does not share that lock between machines, the heartbeat does."""

    def __init__(self, folder: Path):
        self.folder, self.token = folder, secrets.token_hex(8)

    def check(self) -> None:
        """Taken when somebody else took the folder over, which happens to a writer that was silent for long."""
        held = owner(self.folder)
        if not self.folder.is_dir():
            raise RunError(f"{self.folder} was removed while this process was writing it: run the same command again")
        if held is None or held.get("token") != self.token:
            raise Taken(f"{self.folder} was taken over by {described(held)} while this process was silent: its results stand")

    @contextlib.contextmanager
    def holding(self) -> Iterator[Writer]:
        """Hold the folder for the length of a block."""
        lock = FileLock(self.folder / LOCK, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise Taken(self._busy()) from None
        ended = threading.Event()
        try:
            if is_alive(self.folder):
                raise Taken(self._busy())
            self._sign()
            threading.Thread(target=self._beat, args=(ended,), daemon=True).start()
            yield self
        finally:
            ended.set()
            if (owner(self.folder) or {}).get("token") == self.token:
                (self.folder / OWNER).unlink(missing_ok=True)
            (self.folder / LOCK).unlink(missing_ok=True)  # while it is held: who waits for it sees that it is gone
            lock.release()

    def _busy(self) -> str:
        held = owner(self.folder)
        far = held is not None and held.get("host") != socket.gethostname()
        gone = f"; if that machine is gone, delete {OWNER} there" if far else ""
        return f"{self.folder} is being written by {described(held)}: wait for it, or choose another --out{gone}"

    def _sign(self) -> None:
        about = {"token": self.token, "pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat()}
        (self.folder / OWNER).write_text(json.dumps(about))

    def _beat(self, ended: threading.Event) -> None:
        while not ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self.folder / OWNER)


def owner(folder: Path) -> dict[str, str | int] | None:
    """Who signed a run folder last and did not sign off; None for nobody."""
    try:
        held = json.loads(read_regular(folder / OWNER))
    except (OSError, ValueError):
        return None
    return held if isinstance(held, dict) else None


def is_alive(folder: Path) -> bool:
    """Whether a writer on another machine has given a sign of life; on this machine the lock itself tells."""
    held = owner(folder)
    if held is None or held.get("host") == socket.gethostname():
        return False
    with contextlib.suppress(OSError):
        return time.time() - (folder / OWNER).stat().st_mtime < SILENT
    return False


def described(held: dict[str, str | int] | None) -> str:
    """A writer in words."""
    if held is None:
        return "another process"
    return f"process {held.get('pid')} on {held.get('host')} since {held.get('since')}"
