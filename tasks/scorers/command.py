"""A scorer that is a command line: JSON in, JSON out, within a time limit. For judges in other languages and environments."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cos_interp.interp.errors import InterpError
from cos_interp.tasks.scorer import Case, Scorer
from cos_interp.tasks.video import encode_mp4

END = 1 << 20  # bytes of an output that are read


def command_scorer(command: str, seconds: float) -> Scorer:
    """The scorer of a command, which is split as a shell would but not given to one.

    It reads one line of JSON: ``video`` (mp4), ``frames`` (the exact pixels, .npy), ``image`` and ``reference`` (paths or null),
    ``name``, ``prompt``, ``expected``, ``folder`` (where relative paths in ``expected`` start); it writes one JSON value, of the
    forms that :func:`as_verdict` takes, as the last line of its output. One that takes longer than ``seconds`` is ended with all
    that it started. InterpError for a command that is none, or is not there.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InterpError(f"--scorer-cmd {command}: {error}: quote it as for a shell") from error
    if not words:
        raise InterpError("--scorer-cmd is empty: give a command like 'python judge.py'")
    if shutil.which(words[0]) is None:
        raise InterpError(f"--scorer-cmd {command}: there is no program {words[0]} that can be started")

    def judge(video: np.ndarray, case: Case) -> Any:
        with tempfile.TemporaryDirectory(prefix="cos-scorer-") as folder:
            return _answer(_run(words, json.dumps(_told(Path(folder), video, case)) + "\n", seconds, Path(folder)))

    return judge


def _told(folder: Path, video: np.ndarray, case: Case) -> dict[str, Any]:
    path = folder / "video.mp4" if case.file is None else case.file.resolve()
    if case.file is None:
        path.write_bytes(encode_mp4(video, enlarge=1))
    np.save(folder / "frames.npy", video)
    told: dict[str, Any] = {"video": str(path), "frames": str(folder / "frames.npy"), "image": None}
    if case.image is not None:
        Image.fromarray(case.image).save(folder / "image.png")
        told["image"] = str(folder / "image.png")
    reference = None if case.reference is None else str(case.reference.resolve())
    if reference is None and case.video is not None:
        np.save(folder / "reference.npy", case.video)
        reference = str(folder / "reference.npy")
    about = {"name": case.name, "prompt": case.prompt, "expected": case.expected, "folder": str(case.folder.resolve())}
    return {**told, "reference": reference, **about}


def _run(words: list[str], told: str, seconds: float, folder: Path) -> str:
    """The end of what a command writes, which is in a process group of its own. ValueError for one that fails, or takes too long.

    It reads and writes files: a pipe would be waited for as long as anything that the command left behind holds it.
    """
    given, out, err = (folder / name for name in ("stdin", "stdout", "stderr"))
    given.write_text(told)
    try:
        with given.open() as stdin, out.open("wb") as stdout, err.open("wb") as stderr:
            done = subprocess.Popen(words, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True)
    except OSError as error:
        raise ValueError(f"{words[0]} cannot be started: {error.strerror}") from error
    try:
        done.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(done.pid, signal.SIGKILL)
        done.wait()
        raise ValueError(f"{words[0]} took longer than {seconds:g} s") from None
    if done.returncode:
        last = (_end(err).strip().splitlines() or ["nothing on standard error"])[-1]
        raise ValueError(f"{words[0]} ended with exit code {done.returncode}: {last}")
    return _end(out)


def _end(path: Path) -> str:
    """What stands last in a file, whose whole may be any size."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - END))
        return file.read().decode(errors="replace")


def _answer(out: str) -> Any:
    line = (out.strip().splitlines() or [""])[-1]
    try:
        return json.loads(line)
    except ValueError:
        raise ValueError(f"the command wrote {line[:80]!r}, which is no JSON: write one value as the last line") from None
