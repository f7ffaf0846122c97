"""What the folder of true videos says of a sample: in the sample's own folder, and in lists of JSON beside these folders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cos_interp.analyses.chain_of_steps import ChainOfStepsConfig
from cos_interp.analyses.driver.inputs import picture
from cos_interp.analyses.driver.prompt_lists import FRAME, LAST, SAID_OF, TEXT, TRUTH, Entry, entry_of, json_of
from cos_interp.interp.errors import InterpError
from cos_interp.tasks import Case, Item, suite
from cos_interp.tasks.scorer import case_of
from cos_interp.tasks.scorers.vbvr import category
from cos_interp.tasks.steps import Sample

LISTS = (".json", ".jsonl")
# VBVR-Bench's categories, which some folders are called by
CATEGORIES = ("abstraction", "knowledge", "perception", "spatiality", "transformation")
NAMED = ("id", "name")  # keys of a line whose value may be its sample's name in the list's folder
LONGEST = 1000  # characters of a path: a picture in base64 is none
TAIL = 2  # parts of a path that name a sample at least: its task and its number


def told_of(config: ChainOfStepsConfig, sample: Sample) -> bool:
    """Whether the folder has anything that a video of the sample can be held against."""
    return _there(config, sample, (TRUTH, FRAME, *LAST)) is not None or bool(_listed(config, sample).line)


def split_of(sample: Sample) -> str:
    """The folder that holds tasks, or categories of them: what a benchmark calls a split. The empty string without one."""
    return next(iter(sample.key.split("/")[:-2]), "")


def _there(config: ChainOfStepsConfig, sample: Sample, names: tuple[str, ...]) -> Path | None:
    """The first of some files that the sample's folder has."""
    at = Path(config.truth or "") / sample.key
    return next((at / name for name in names if config.truth and (at / name).is_file()), None)


def item_at(key: str) -> Item | None:
    """The item of the suite that ``cos tasks export`` gives this place; None for a place that is not the suite's."""
    split, _, rest = key.partition("/")
    task, _, number = rest.partition("/")
    if split != suite.NAME or task not in suite.OF or not number.isdecimal() or int(number) >= suite.SIZE:
        return None
    return suite.task_items(task)[int(number)]


def case_for(config: ChainOfStepsConfig, sample: Sample) -> Case:
    """What a scorer is told of a sample: of the suite its item, else what lies in the folder of true videos. InterpError for a
    file there that cannot be read."""
    item, true, at = item_at(sample.key), _there(config, sample, (TRUTH,)), Path(config.truth or "") / sample.key
    if item is not None:
        return replace(case_of(item, sample.key), folder=at, reference=true)
    text, said = _there(config, sample, (TEXT,)), _there(config, sample, SAID_OF)
    listed = _listed(config, sample)
    prompt = text.read_text(encoding="utf-8", errors="replace").strip() if text else str(listed.line.get("prompt") or "")
    expected = json_of(said, "--truth") if said else listed.line.get("expected")
    said_part = _word(expected, "category") or _word(listed.line.get("expected"), "category")
    part = said_part or _of_folders(sample) or category(sample.task)
    return Case(
        sample.key, prompt, _first_frame(config, sample, listed), expected,
        reference=true, folder=at, group=sample.task, part=part, key=sample.key,
    )  # fmt: skip


def dimension_of(config: ChainOfStepsConfig, sample: Sample, case: Case) -> str:
    """The dimension that a sample is said to measure; the empty string where none is said."""
    return _word(case.expected, "dimension") or _word(_listed(config, sample).line.get("expected"), "dimension")


def final_frame(config: ChainOfStepsConfig, sample: Sample) -> np.ndarray | None:
    """The picture of how a sample should end, uint8 ``[height, width, 3]``, where there is one."""
    path = _there(config, sample, LAST)
    return None if path is None else np.asarray(picture(f"--truth {path}", path.parent, path.name))


def _first_frame(config: ChainOfStepsConfig, sample: Sample, listed: Entry) -> np.ndarray | None:
    """The picture that the model was given: of the sample's folder, or that a list holds or names."""
    if listed.embedded is not None:
        return np.asarray(listed.embedded)
    own, named = _there(config, sample, (FRAME,)), listed.folder / str(listed.line.get("image") or "")
    path = own or (named if named.is_file() else None)
    return None if path is None else np.asarray(picture(f"--truth {path}", path.parent, path.name))


def _word(said: Any, key: str) -> str:
    """A text, or several, that metadata say under a key, or one level below it under ``metadata``."""
    if not isinstance(said, Mapping):
        return ""
    found = said.get(key, _word(said.get("metadata"), key))
    return found if isinstance(found, str) else ", ".join(map(str, found)) if isinstance(found, list) else ""


def _of_folders(sample: Sample) -> str:
    """The category that a folder above the task's is called by: any one below a split, and else one of the benchmark's.

    >>> at = lambda key: _of_folders(Sample(key, ()))
    >>> at("Spatiality/maze/00000"), at("open/Logic/maze/00000"), at("In-Domain_50/maze/00000")
    ('Spatiality', 'Logic', '')
    """
    above = sample.key.split("/")[:-2]
    return above[-1] if len(above) > 1 or (above and above[-1].lower() in CATEGORIES) else ""


# --- lists of JSON ---------------------------------------------------------------------------------------------------


def _listed(config: ChainOfStepsConfig, sample: Sample) -> Entry:
    """What JSON beside the samples' folders says of a sample, in our names; an entry that says nothing where none names it.

    A file of one sample, ``<split>/<task>/<00000>.json``, is called as it is. A list lies in any folder above it, as
    VBVR-Bench.json does, and a line names its sample by the path of any of its files, or by its name in that folder.
    """
    home = Path(config.truth or "")
    if config.truth is None:
        return Entry("", {}, home)
    own = home / f"{sample.key}.json"
    if own.is_file() and isinstance(held := json_of(own, "--truth"), dict):
        return entry_of(f"--truth {own}", held, home, False)
    parts = sample.key.split("/")
    for depth in range(len(parts) - 1, -1, -1):
        folder, name = home.joinpath(*parts[:depth]), "/".join(parts[depth:])
        lines = _index(folder, _stamp(folder))
        if found := lines.get(name) or lines.get(sample.key):
            return entry_of(*found, home, False)
    return Entry("", {}, home)


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Which lists there are in a folder, and when they were written."""
    held = sorted(path for path in folder.glob("*") if path.suffix in LISTS and path.is_file())
    return tuple((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in held)


@lru_cache(maxsize=32)
def _index(folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> dict[str, tuple[str, dict[str, Any]]]:
    """By every place that a line may mean, how an error names it, and the line."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, _, _ in stamp:
        for number, line in enumerate(_lines(folder / name), 1):
            for place in _meant(line):
                found.setdefault(place, (f"--truth {folder / name}, entry {number}", line))
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a list, of an object of lists, or of lines of JSON; of any size, since pictures may stand in them."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        value = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise InterpError(f"--truth {path} is no list of JSON: {error}") from error
    parts = value.values() if isinstance(value, dict) else [value]
    yield from (line for part in parts if isinstance(part, list) for line in part if isinstance(line, dict))


def _meant(line: Mapping[str, Any]) -> Iterator[str]:
    """The places that a line may mean: its name; and of every path in it the folder, and the path without its ending, from any
    part on.

    >>> list(_meant({"id": "00000", "gt_path": "open/maze/00000/a.mp4"}))
    ['00000', 'open/maze/00000', 'maze/00000', 'open/maze/00000/a', 'maze/00000/a', '00000/a']
    """
    yield from (str(line[key]) for key in NAMED if isinstance(line.get(key), (str, int)))
    for value in line.values():
        if not isinstance(value, str) or "/" not in value or len(value) > LONGEST:
            continue
        path = PurePosixPath(value)
        for place in (path.parent, path.parent / path.stem):
            yield from ("/".join(place.parts[start:]) for start in range(max(1, len(place.parts) - TAIL + 1)))
