"""Exchange with the folder layout of VBVR-Bench (Apache-2.0 evaluation kit by Video-Reason).

Out: ``<split>/<task>/<00000>/{first_frame.png, final_frame.png, ground_truth.mp4, prompt.txt, metadata.json}``.
In: ``<model>/<split>/<task>/<00000>.mp4``, one generated video an item.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from cos_interp.interp.files import whole_folder
from cos_interp.tasks import Item, Verdict, get_task, suite
from cos_interp.tasks.timing import odd
from cos_interp.tasks.video import encode_mp4, read_timed


def places(items: Sequence[Item], split: str) -> list[tuple[Item, Path]]:
    """Each item with its relative folder, numbered within its task."""
    count: dict[str, int] = {}
    out = []
    for item in items:
        number = count.get(item.task, 0)
        count[item.task] = number + 1
        out.append((item, Path(split) / item.task / f"{number:05d}"))
    return out


def export(folder: Path, items: Sequence[Item], split: str = suite.NAME) -> int:
    """Write the items, and ``metadata.jsonl`` as ``load_dataset("videofolder")`` reads it, all or nothing; returns how many.
    FileExistsError where the split, or the list, is there already."""
    with whole_folder(folder) as made:
        listed = [_exported(made, item, place) for item, place in places(items, split)]
        (made / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in listed), encoding="utf-8")
    return len(items)


def _exported(folder: Path, item: Item, place: Path) -> dict[str, Any]:
    """Write one item; its line of the list."""
    target = folder / place
    target.mkdir(parents=True)
    Image.fromarray(item.video[0]).save(target / "first_frame.png")
    Image.fromarray(item.video[-1]).save(target / "final_frame.png")
    (target / "ground_truth.mp4").write_bytes(encode_mp4(item.video))
    (target / "prompt.txt").write_text(item.prompt + "\n", encoding="utf-8")
    facts = {
        "task": item.task, "seed": item.seed, "difficulty": item.difficulty, "unique": item.unique,
        "answer": item.answer, "answers": list(item.answers), **dict(item.metadata),
    }  # fmt: skip
    (target / "metadata.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    columns = {key: facts[key] for key in ("task", "seed", "difficulty", "unique", "answer", "answers")}
    return {"file_name": (place / "ground_truth.mp4").as_posix(), "prompt": item.prompt, **columns}


def score(
    folder: Path, items: Sequence[Item], split: str = suite.NAME, progress: Callable[[], None] = lambda: None
) -> list[tuple[Item, Path, Verdict | None]]:
    """Verdict of every item's video under ``folder``; None where the video is missing.

    A video that cannot be read, or has another size or length, or a frame rate that varies, is *undecided* with the reason as its
    error.
    Raises FileNotFoundError when the folder holds no video of the suite at all.
    """
    out: list[tuple[Item, Path, Verdict | None]] = []
    for item, place in places(items, split):
        path = folder / place.with_suffix(".mp4")
        out.append((item, path, _judge(item, path) if path.exists() else None))
        progress()
    if all(verdict is None for _, _, verdict in out):
        raise FileNotFoundError(f"no video found under {folder}: expected files like {out[0][1]}")
    return out


def unread(scored: Sequence[tuple[Item, Path, Verdict | None]]) -> list[str]:
    """Why videos were not read, each reason with how many and the first of them. None has an answer that counts."""
    found: dict[str, list[Path]] = {}
    for _, path, verdict in scored:
        if verdict is not None and verdict.status == "undecided" and verdict.error:
            found.setdefault(verdict.error.replace(str(path), "").strip(), []).append(path)
    return [f"not read: {paths[0]}{f' and {len(paths) - 1} more' if paths[1:] else ''}: {why}" for why, paths in found.items()]


def _judge(item: Item, path: Path) -> Verdict:
    try:
        frames, times = read_timed(path)
        return Verdict("undecided", why) if (why := odd(times, None)) else get_task(item.task).verify(item, frames)
    except ValueError as error:
        return Verdict("undecided", str(error))
