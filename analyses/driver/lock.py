"""Who may write a run folder: one process, or one process a shard; a lock ends with its process, and says who holds it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from cos_interp.analyses.driver.errors import RunError, Taken
from cos_interp.analyses.driver.shard import Shard
from cos_interp.interp.files import read_regular

LOCK, OWNER = ".lock", ".owner.json"
GATE = ".gate"  # held while a shard begins: one after the other
BEAT = 10.0  # seconds between heartbeats
SILENT = 120.0  # seconds without one after which another machine's writer counts as gone
PATIENCE = 60.0  # seconds that a shard waits for others to have begun


def is_lock(name: str) -> bool:
    """Whether a file of this name, in a run folder, says who writes there."""
    return re.fullmatch(r"\.gate|\.lock(-\d+-of-\d+)?|\.owner(-\d+-of-\d+)?\.json", name) is not None


def _lock(shard: Shard | None) -> str:
    return LOCK if shard is None else f"{LOCK}-{shard.tag}"


def _owner(shard: Shard | None) -> str:
    return OWNER if shard is None else f".owner-{shard.tag}.json"


class Writer:
    """The right to write a run folder, all of it or a shard. The operating system's lock decides on one machine, however its
    holder ends; where a file system does not share that lock between machines, the heartbeat does.

    Who writes all of it is alone; of each shard there is one writer.
    """

    def __init__(self, folder: Path, shard: Shard | None = None):
        self.folder, self.shard, self.token = folder, shard, secrets.token_hex(8)

    def check(self) -> None:
        """Taken when somebody else took the folder over, which happens to a writer that was silent for long."""
        held = owner(self.folder, self.shard)
        if not self.folder.is_dir():
            raise RunError(f"{self.folder} was removed while this process was writing it: run the same command again")
        if held is None or held.get("token") != self.token:
            raise Taken(f"{self.folder} was taken over by {described(held)} while this process was silent: its results stand")

    @contextlib.contextmanager
    def holding(self) -> Iterator[Writer]:
        """Hold the folder, or the shard, for the length of a block."""
        with contextlib.ExitStack() as held:
            with contextlib.nullcontext() if self.shard is None else self._no_other_begins():
                held.enter_context(_locked(self.folder / _lock(self.shard), self._busy))
                if is_alive(self.folder, self.shard):
                    raise Taken(self._busy())
                if self.shard is None:
                    self._refuse_shards()
                self._sign()
            held.callback(self._sign_off)
            ended = threading.Event()
            held.callback(ended.set)
            threading.Thread(target=self._beat, args=(ended,), daemon=True).start()
            yield self

    @contextlib.contextmanager
    def beginning(self) -> Iterator[bool]:
        """While a writer looks at what is there and says what it will do, no other shard does; yields whether it is alone."""
        if self.shard is None:
            yield True
            return
        with _locked(self.folder / GATE, self._busy, PATIENCE):
            yield not any(other != self.shard and lives(self.folder, other) for other in shards(self.folder))

    @contextlib.contextmanager
    def _no_other_begins(self) -> Iterator[None]:
        """Taken where somebody writes all of the folder."""
        whole = Writer(self.folder)
        with _locked(self.folder / GATE, self._busy, PATIENCE), _locked(self.folder / LOCK, whole._busy):
            if is_alive(self.folder):
                raise Taken(whole._busy())
            yield

    def _refuse_shards(self) -> None:
        """Taken for a shard that is being written; what dead ones left behind is taken away."""
        for shard in shards(self.folder):
            other = Writer(self.folder, shard)
            with _locked(self.folder / _lock(shard), other._busy):
                if is_alive(self.folder, shard):
                    raise Taken(other._busy())
                (self.folder / _owner(shard)).unlink(missing_ok=True)
        (self.folder / GATE).unlink(missing_ok=True)  # of one that was killed: who is there now is refused

    def _busy(self) -> str:
        held = owner(self.folder, self.shard)
        far = held is not None and held.get("host") != socket.gethostname()
        gone = f"; if that machine is gone, delete {_owner(self.shard)} there" if far else ""
        what = self.folder if self.shard is None else f"shard {self.shard} of {self.folder}"
        return f"{what} is being written by {described(held)}: wait for it, or choose another --out{gone}"

    def _sign(self) -> None:
        about = {"token": self.token, "pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat()}
        (self.folder / _owner(self.shard)).write_text(json.dumps(about))

    def _sign_off(self) -> None:
        if (owner(self.folder, self.shard) or {}).get("token") == self.token:
            (self.folder / _owner(self.shard)).unlink(missing_ok=True)

    def _beat(self, ended: threading.Event) -> None:
        while not ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self.folder / _owner(self.shard))


@contextlib.contextmanager
def _locked(path: Path, busy: Callable[[], str], patience: float = 0) -> Iterator[None]:
    lock = FileLock(path, timeout=patience, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise Taken(busy()) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: who waits for it sees that it is gone
        lock.release()


def owner(folder: Path, shard: Shard | None = None) -> dict[str, str | int] | None:
    """Who signed a run folder, or a shard, last and did not sign off; None for nobody."""
    try:
        held = json.loads(read_regular(folder / _owner(shard)))
    except (OSError, ValueError):
        return None
    return held if isinstance(held, dict) else None


def shards(folder: Path) -> list[Shard]:
    """The shards that somebody took and did not give back, alive or dead."""
    names = [re.fullmatch(r"\.(?:owner|lock)-(\d+)-of-(\d+)(?:\.json)?", path.name) for path in folder.glob(".*-of-*")]
    found = {(int(name[1]), int(name[2])) for name in names if name is not None}
    return [Shard(number, count) for number, count in sorted(found) if 1 <= number <= count]


def is_alive(folder: Path, shard: Shard | None = None) -> bool:
    """Whether a writer on another machine has given a sign of life; on this machine the lock itself tells."""
    held = owner(folder, shard)
    return held is not None and held.get("host") != socket.gethostname() and _beats(folder, shard)


def lives(folder: Path, shard: Shard | None) -> bool:
    """Whether the writer of a folder, or a shard, has given a sign of life, without touching its lock."""
    held = owner(folder, shard)
    if held is None or not _beats(folder, shard):
        return False
    return held.get("host") != socket.gethostname() or _runs(int(held.get("pid", 0)))


def _runs(pid: int) -> bool:
    """Whether there is a process on this machine; not known where asking would end it."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _beats(folder: Path, shard: Shard | None) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - (folder / _owner(shard)).stat().st_mtime < SILENT
    return False


def described(held: dict[str, str | int] | None) -> str:
    """A writer in words."""
    if held is None:
        return "another process"
    return f"process {held.get('pid')} on {held.get('host')} since {held.get('since')}"
