"""VBVR-Bench's own scorers, called where the benchmark's package is installed. Nothing of it is copied.

The package is ``vbvr_bench`` of Video-Reason/VBVR-EvalKit; it is on no index. What it imports is the extra ``vbvr``.
"""

from __future__ import annotations

import hashlib
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from cos_interp.tasks.item import Verdict
from cos_interp.tasks.scorer import GRADED, Case
from cos_interp.tasks.video import encode_mp4

FPS = 16


def judge(video: np.ndarray, case: Case) -> Verdict:
    """Graded only: the benchmark's ``score`` and its dimensions, each in [0, 1]; it has no strict verdict.

    ``case.group`` is the task's name in the benchmark, ``case.folder`` the sample's folder with ground truth. ValueError, so
    *undecided*, where the task has no scorer, where its folder lacks what the scorer reads, and where the scorer itself failed:
    the benchmark counts these as 0.
    """
    from_task = _package().TASK_EVALUATOR_MAP.get(case.group)
    if from_task is None:
        raise ValueError(f"VBVR-Bench has no scorer for the task {case.group!r}")
    lacking = [name for name in ("first_frame.png", "final_frame.png", "ground_truth.mp4") if not (case.folder / name).is_file()]
    if lacking:
        raise ValueError(f"{case.folder} lacks {', '.join(lacking)}, which the benchmark's scorer reads")
    with tempfile.TemporaryDirectory(prefix="cos-vbvr-") as folder:
        path = case.file or Path(folder) / "video.mp4"  # the very file, as the benchmark reads it
        if case.file is None:
            path.write_bytes(encode_mp4(video, FPS, enlarge=1))
        found = from_task(device="cpu", task_name=case.group).evaluate(_told(path, case))
    if found.get("error"):
        raise ValueError(f"the benchmark's scorer failed: {found['error']}")
    return Verdict("undecided", GRADED, readings={"score": float(found["score"]), **_numbers(found.get("dimensions", {}))})


def category(task: str) -> str:
    """The benchmark's category of a task; the empty string where its package cannot be imported, or does not know the task."""
    try:
        return str(_package().TASK_CATEGORY_MAP.get(task, ""))
    except ValueError:
        return ""


def content() -> dict[str, str]:
    """sha256 of the benchmark's package, since its version says little; nothing where it cannot be imported."""
    try:
        home = Path(str(_package().__file__)).parents[1]
    except ValueError:
        return {}
    digest = hashlib.sha256()
    for path in sorted(home.rglob("*.py")):
        digest.update(path.relative_to(home).as_posix().encode() + b"\0" + path.read_bytes())
    return {"vbvr_bench": digest.hexdigest()}


def _package() -> Any:
    """The benchmark's evaluators. ValueError where they cannot be imported: what another package raises is anybody's guess."""
    try:
        return import_module("vbvr_bench.evaluators")
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"the scorer vbvr needs the package vbvr_bench ({type(error).__name__}: {error}): pip install 'cos-interp[vbvr]', "
            "then pip install --no-deps git+https://github.com/Video-Reason/VBVR-EvalKit, or use --scorer reference"
        ) from error


def _told(path: Path, case: Case) -> dict[str, str]:
    """What the benchmark's evaluators are told of a sample."""
    at = case.folder
    return {
        "video_path": str(path), "gt_path": str(at), "gt_video_path": str(at / "ground_truth.mp4"),
        "gt_first_frame": str(at / "first_frame.png"), "gt_final_frame": str(at / "final_frame.png"),
        "prompt_path": str(at / "prompt.txt"), "prompt": case.prompt, "task_name": case.group, "video_idx": at.name,
    }  # fmt: skip


def _numbers(dimensions: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in dimensions.items() if isinstance(value, (int, float, np.number))}
