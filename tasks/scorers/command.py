"""A scorer that is a command line: JSON in, JSON out, within a time limit. For judges in other languages and environments."""

from __future__ import annotations

import json
import os
import shlex
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


def command_scorer(command: str, seconds: float) -> Scorer:
    """The scorer of a command, which is split as a shell would but not given to one.

    It reads one line of JSON: ``video`` (mp4), ``frames`` (the exact pixels, .npy), ``image`` and ``reference`` (paths or null),
    ``name``, ``prompt``, ``expected``; it writes one JSON value, of the forms that :func:`as_verdict` takes, as the last line of
    its output. One that takes longer than ``seconds`` is ended with all that it started. InterpError for an empty command.
    """
    words = shlex.split(command)
    if not words:
        raise InterpError("--scorer-cmd is empty: give a command like 'python judge.py'")

    def judge(video: np.ndarray, case: Case) -> Any:
        with tempfile.TemporaryDirectory(prefix="cos-scorer-") as folder:
            return _answer(_run(words, json.dumps(_told(Path(folder), video, case)) + "\n", seconds))

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
    return told | {"reference": reference, "name": case.name, "prompt": case.prompt, "expected": case.expected}


def _run(words: list[str], told: str, seconds: float) -> str:
    """Standard output of a command in a process group of its own. ValueError for one that fails, or takes too long."""
    try:
        done = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    except OSError as error:
        raise ValueError(f"{words[0]} cannot be started: {error.strerror}") from error
    try:
        out, err = done.communicate(told, timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(done.pid, signal.SIGKILL)
        done.communicate()
        raise ValueError(f"{words[0]} took longer than {seconds:g} s") from None
    if done.returncode:
        last = (err.strip().splitlines() or ["nothing on standard error"])[-1]
        raise ValueError(f"{words[0]} ended with exit code {done.returncode}: {last}")
    return out


def _answer(out: str) -> Any:
    line = (out.strip().splitlines() or [""])[-1]
    try:
        return json.loads(line)
    except ValueError:
        raise ValueError(f"the command wrote {line[:80]!r}, which is no JSON: write one value as the last line") from None
