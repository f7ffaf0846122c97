"""Lists of prompts as they are around: JSON lines, JSON arrays, texts with a prompt a line, folders with a prompt each.

All become lines of our own form: ``prompt``, ``image``, ``reference``, ``expected`` and keywords of the pipeline.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from cos_interp.analyses.driver import inputs
from cos_interp.analyses.driver.saying import NUMBERS, OBJECTS
from cos_interp.interp.errors import InterpError
from cos_interp.interp.rgb import to_rgb

EXAMPLE = '{"prompt": "a red ball", "image": "ball.png"}'
OURS = (*inputs.TEXTS, *inputs.PICTURES, *inputs.COUNTS, *NUMBERS, *OBJECTS, *inputs.OF_SCORER, "seed")
# usual names of what ours are; ours counts, else the first that a line has
NAMES = {
    "prompt": ("prompt_en", "text", "caption"),
    "negative_prompt": ("n_prompt", "neg_prompt"),
    "image": ("image_path", "first_frame_path", "first_frame", "img_path", "input_image"),
    "last_image": ("last_image_path", "last_frame_path", "end_image"),
    "reference": ("ground_truth_video_path", "ground_truth_path", "gt_path"),
    "num_frames": ("frame_num", "video_length"),
    "seed": ("base_seed",),
}
EMBEDDED = ("first_image", "image_base64")  # a picture as base64, with or without "data:image/png;base64,"
# what lists say beside: told to the scorer, not to the model
SAID = (
    "id", "name", "index", "task", "task_name", "category", "split", "dimension", "metadata", "answer", "auxiliary_info",
    "prompt_path", "final_frame_path", "final_frame", "final_image",
)  # fmt: skip
# of a folder with a prompt
FRAME, TEXT, TRUTH = "first_frame.png", "prompt.txt", "ground_truth.mp4"
LAST = ("final_frame.png", "last_frame.png")  # how it should end; the model is not told
SAID_OF = ("metadata.json", "question_metadata.json")


@dataclass(frozen=True)
class Entry:
    """One line of a list. ``where``: how an error names it. ``folder``: where its paths start. ``key``: its place in a folder of
    folders, as a benchmark names it. ``embedded``: its picture, where the list holds the pixels."""

    where: str
    line: dict[str, Any]
    folder: Path
    key: str = ""
    embedded: Image.Image | None = None


def entries(path: Path, option: str) -> list[Entry]:
    """All lines of a list: ``.txt`` a prompt a line, ``.json`` an array of objects or texts, a folder with folders that hold
    ``prompt.txt``, or else files of JSON; else JSON lines. InterpError names the line that does not fit, and what would."""
    if path.is_dir():
        found = list(_of_folder(path, option)) or list(_of_json_files(path, option))
    elif path.suffix == ".txt":
        texts = enumerate(inputs.text_of(path, option).split("\n"), 1)
        found = [_of_text(f"{option} {path}, line {number}", text.strip(), path.parent) for number, text in texts if text.strip()]
    elif path.suffix == ".json":
        found = [entry_of(where, line, path.parent, False) for where, line in enumerated(path, option)]
    else:
        found = [
            entry_of(f"{option} {path}, line {number}", line, path.parent, True)
            for number, line in inputs.json_lines(path, option, EXAMPLE)
        ]
    if not found and path.is_dir():
        raise InterpError(f"{option} {path} holds no prompts: give folders with {TEXT}, or files of JSON like {EXAMPLE}")
    if not found:
        raise InterpError(f"{option} {path} holds no prompts: write one a line (.txt), or lines of JSON like {EXAMPLE}")
    return found


def _of_text(where: str, text: str, folder: Path) -> Entry:
    if text.startswith(inputs.COMMENTS):
        again = json.dumps({"prompt": text}, ensure_ascii=False)
        raise InterpError(f"{where} looks like a comment: take it out, or write the prompt as a line of a .jsonl file, {again}")
    return Entry(where, {"prompt": text}, folder)


def content(path: Path, option: str) -> dict[str, str]:
    """sha256 of every line and of every file that one names."""
    home = path if path.is_dir() else path.parent
    return inputs.of_lines(((_with_pixels(entry), entry.folder) for entry in entries(path, option)), home, option)


def _with_pixels(entry: Entry) -> dict[str, Any]:
    """The line, with what its picture is where the list holds the pixels."""
    if entry.embedded is None:
        return entry.line
    return {**entry.line, "pixels": hashlib.sha256(entry.embedded.tobytes()).hexdigest(), "size": entry.embedded.size}


def _of_folder(path: Path, option: str) -> Iterator[Entry]:
    """``questions/<task>/<id>/prompt.txt`` or ``<split>/<task>/<id>/prompt.txt``, at any depth, by path."""
    for text in sorted(path.rglob(TEXT)):
        folder, where = text.parent, f"{option} {text}"
        line: dict[str, Any] = {"prompt": inputs.text_of(text, option).strip()}
        line |= {"image": FRAME} if (folder / FRAME).is_file() else {}
        line |= {"reference": TRUTH} if (folder / TRUTH).is_file() else {}
        if told := next((folder / name for name in SAID_OF if (folder / name).is_file()), None):
            line["expected"] = json_of(told, option)
        yield Entry(where, line, folder, folder.relative_to(path).as_posix())


def _of_json_files(path: Path, option: str) -> Iterator[Entry]:
    """``<task>/<id>.json``, an object each, or a list of them, at any depth, by path; files beside are named from theirs."""
    for file in sorted(path.rglob("*.json")):
        held = json_of(file, option)
        key = file.relative_to(path).with_suffix("").as_posix()
        if isinstance(held, dict):
            yield replace(entry_of(f"{option} {file}", held, file.parent, False), key=key)
            continue
        for number, (where, line) in enumerate(enumerated(file, option)):
            yield replace(entry_of(where, line, file.parent, False), key=f"{key}/{number:05d}")


def enumerated(path: Path, option: str) -> list[tuple[str, Any]]:
    """The entries of a list of JSON, each with how an error names it."""
    return [(f"{option} {path}, entry {number}", line) for number, line in enumerate(_array(path, option), 1)]


def _array(path: Path, option: str) -> list[Any]:
    """The list that a file holds, or those of an object whose values are lists, one after the other."""
    value = json_of(path, option)
    if isinstance(value, dict) and value and all(isinstance(part, list) for part in value.values()):
        value = [line for part in value.values() for line in part]
    if not isinstance(value, list):
        raise InterpError(f"{option} {path} must be a list of prompts or of objects like {EXAMPLE}")
    return value


def json_of(path: Path, option: str) -> Any:
    """The value of a file of JSON. InterpError for what is none."""
    return inputs.strict_json(
        f"{option} {path}", inputs.text_of(path, option), "no JSON", f"write a list of objects like {EXAMPLE}"
    )


def entry_of(where: str, given: Any, folder: Path, strict: bool) -> Entry:
    """A line of a list, in our names. ``strict``: a key that is nobody's goes to the pipeline, which refuses what it does not
    take; else it is told to the scorer."""
    if isinstance(given, str):
        given = {"prompt": given}
    if not isinstance(given, dict):
        raise InterpError(f"{where} must be a text or an object like {EXAMPLE}")
    line = dict(given)
    pictures = [_decoded(f"{where}: {key}", line.pop(key)) for key in EMBEDDED if key in line]
    for ours, names in NAMES.items():
        for name in [name for name in names if name in line]:
            value = line.pop(name)
            if value is not None and line.setdefault(ours, value) != value:
                if strict:
                    raise InterpError(f"{where}: {ours!r} and {name!r} are names of one thing and differ: leave one out")
                line[name] = value
    if pictures and not (isinstance(line.get("image"), str) and (folder / line["image"]).is_file()):
        line.pop("image", None)
    else:
        pictures = []
    beside = {key: line.pop(key) for key in list(line) if key in SAID or (not strict and key not in OURS)}
    if beside:
        line["expected"] = (
            {**beside, **line["expected"]} if isinstance(line.get("expected"), dict) else line.get("expected", beside)
        )
    return Entry(where, line, folder, embedded=pictures[0] if pictures else None)


def _decoded(where: str, value: Any) -> Image.Image:
    try:
        data = base64.b64decode(str(value).rpartition("base64,")[2], validate=True)
        with Image.open(io.BytesIO(data)) as image:
            return to_rgb(image)
    except (binascii.Error, UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise InterpError(f"{where} is no picture in base64: {error}") from error
