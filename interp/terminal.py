"""What commands share: their error, their progress bar, their ``--json``. Light; loads nothing heavy."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from cos_interp.interp.files import is_leftover, plain, write_atomic

Json = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")]


class Failure(Exception):
    """A message for the user; exit code 1."""


def refuse_other_content(folder: Path, own: Collection[str] = ()) -> None:
    """Failure where a folder that is to be written holds something else than entries of the names ``own``."""
    if folder.is_dir():
        found = sorted(path.name for path in folder.iterdir() if path.name not in own and not is_leftover(path))
    else:
        found = []
        if folder.exists():
            raise Failure(f"{folder} is a file: give a folder")
    if found:
        raise Failure(f"{folder} holds {found[0]}, which would be written over: choose another folder, or empty it yourself")


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Failure that names the place where the disk refuses."""
    try:
        yield
    except OSError as error:
        raise Failure(f"cannot write {place}: {error.strerror or error}") from error


def check_writable(place: Path, is_file: bool = False) -> None:
    """Failure where a file or folder could not be written, before anything is computed for it."""
    with writing(place):
        if is_file and place.is_dir():
            raise Failure(f"cannot write {place}: it is a folder; give the name of a file in it")
        there = next(path for path in (place, *place.absolute().parents) if path.exists())
    if there.is_file() and not (is_file and there == place):
        raise Failure(f"cannot write {place}: {there} is a file")
    if not os.access(there, os.W_OK):
        raise Failure(f"cannot write {place}: {there} is not yours to write, or its disk is read-only")


def write_file(path: Path, data: bytes) -> None:
    """Write a file that was asked for, whole or not at all, with the folders above it. Failure where that cannot be."""
    check_writable(path, is_file=True)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)


def plain_warnings() -> None:
    """A warning of ours is one line; those of other libraries say where they come from, as they are."""
    usual = warnings.formatwarning

    def told(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
        return f"warning: {message}\n" if category is UserWarning else usual(message, category, filename, lineno, line)

    warnings.formatwarning = told


def print_json(value: Any) -> None:
    """Print a value as JSON; null stands for what has no number (NaN)."""
    print(json.dumps(plain(value), allow_nan=False))


EVERY = 60.0  # seconds between two lines where there is no terminal


class Lines:
    """Progress in plain lines, for logs: one a minute at the most, with what is done and the time left at the pace since the line
    before. ``write`` takes a line, ``clock`` gives seconds."""

    def __init__(self, write: Callable[[str], Any], clock: Callable[[], float] = time.monotonic):
        self.write, self.clock = write, clock
        self.began = self.said = clock()
        self.done = 0

    def move(self, done: int, total: int, what: str) -> None:
        now = self.clock()
        if now - self.said < EVERY:
            return
        fresh = done - self.done if done >= self.done else done  # another count has begun
        left = f", about {duration((now - self.said) / fresh * (total - done))} left" if fresh else ""
        self.write(f"{what}: {done} of {total}, {duration(now - self.began)}{left}")
        self.said, self.done = now, done


def duration(seconds: float) -> str:
    """For people.

    >>> duration(42), duration(150), duration(7300)
    ('42 s', '2 min', '2 h 1 min')
    """
    minutes = int(seconds // 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"


@contextlib.contextmanager
def resumable() -> Iterator[Any]:
    """A bar, for the length of a block that goes on when its command is given again; yields the callback that moves it."""
    bar, move = progress_bar()
    try:
        with bar:
            yield move
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to continue", err=True)
        raise typer.Exit(130) from None


def progress_bar() -> tuple[Any, Any]:
    """A bar with time left, and the callback that moves it; where the output is no terminal, a line a minute."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        return contextlib.nullcontext(), Lines(lambda line: print(line, file=sys.stderr, flush=True)).move
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"))
    bar = Progress(*columns, TimeRemainingColumn(), console=console)
    task = bar.add_task("starting")

    def move(done: int, total: int, what: str) -> None:
        bar.update(task, completed=done, total=total, description=what)

    return bar, move
