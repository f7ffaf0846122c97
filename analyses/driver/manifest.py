"""What a complete run folder holds, and whether it still does. Every file is listed with its digest, and the lists are sealed.

``run.json`` seals itself and holds the digest of ``manifest.jsonl``, which lists units and results. ``page.json`` seals itself
and lists the page, its findings and its media: it is made again with the page, the others never.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from cos_interp.analyses.driver import older
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.lock import is_lock
from cos_interp.interp.files import digest, is_leftover, read_regular, read_sealed_json, sealed_json

RUN, MANIFEST, PAGE, RESULTS, REPORT, FINDINGS = (
    "run.json", "manifest.jsonl", "page.json", "results.parquet", "report.html", "findings.json",
)  # fmt: skip
UNITS, MEDIA = "shards", "media"
LISTS = (RUN, MANIFEST, PAGE)


def was_a_run(data: bytes) -> bool:
    """Whether a ``run.json`` was written by this tool, of any version, whatever a byte or two of it may have become since."""
    return sum(mark in data for mark in (b'"seal"', b"seal:", b'"analysis"', b'"versions"', b'"status"')) > 1


def entries(folder: Path) -> list[str]:
    """Everything below a folder but its two own folders, as relative paths in order. No link is followed. Of a run inside, which
    is a part of a dossier, only its ``run.json`` counts: it stands for the rest."""
    found = []
    for here, folders, files in os.walk(folder):
        at = Path(here).relative_to(folder)
        for name in list(folders):
            path = at / name
            if (folder / path / RUN).is_file():
                folders.remove(name)
                found.append((path / RUN).as_posix())
            elif (folder / path).is_symlink() or path.as_posix() not in (UNITS, MEDIA):
                found.append(path.as_posix())
        found += [(at / name).as_posix() for name in files]
    return sorted(found)


def own(folder: Path, parts: Collection[str] = ()) -> list[str]:
    """The files below a folder that a run writes: lists, results, page, units, the lock, leftovers, and what the lists name.
    ``parts``: runs inside, which are wholly its own."""
    fixed = {*LISTS, RESULTS, REPORT, FINDINGS, *_listed(folder)}
    mine = [
        name for name in entries(folder)
        if (name in fixed or is_lock(name) or (_is_unit(name) and _was_a_unit(folder / name)) or is_leftover(Path(name)))
        and not _is_folder(folder / name)
    ]  # fmt: skip
    return mine + [f"{part}/{name}" for part in parts for name in own(folder / part)]


def strangers(folder: Path, parts: Collection[str] = ()) -> list[str]:
    """What lies below a folder and is not of the run."""
    inner = [f"{part}/{name}" for part in parts for name in strangers(folder / part)]
    there = {name for name in entries(folder) if name not in {f"{part}/{RUN}" for part in parts} and not is_leftover(Path(name))}
    return sorted((there - set(own(folder))) | set(inner))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_unit(name: str) -> bool:
    path = Path(name)
    return path.parent.as_posix() == UNITS and path.suffix == ".safetensors" and not is_leftover(path)


def _was_a_unit(path: Path) -> bool:
    """Whether a file of a unit's name was written by this tool, whatever a byte or two of its header may have become since."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    return sum(mark in head for mark in (b'"__metadata__":{"unit":', b'\\"rows\\"', b'\\"facts\\"', b'\\"run\\"')) > 1


def _listed(folder: Path) -> Iterator[str]:
    """Files that the page's list names, damaged or not; in a run of 0.1, the manifest's."""
    for name, pattern in ((PAGE, r'"([^"]+)": "[0-9a-f]{64}"'), (MANIFEST, r'"file": "([^"]+)"')):
        with contextlib.suppress(OSError):
            yield from re.findall(pattern, read_regular(folder / name).decode(errors="replace"))


def made(folder: Path, parts: Collection[str] = ()) -> bytes:
    """The manifest of a finished run: its units, its results and the runs that are parts of it, with digests and sizes."""
    names = [name for name in entries(folder) if _is_unit(name) or name == RESULTS]
    names += [f"{part}/{RUN}" for part in parts if (folder / part / RUN).is_file()]
    lines = [{"file": name, "sha256": digest(folder / name), "bytes": (folder / name).stat().st_size} for name in sorted(names)]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def root(lines: bytes) -> dict[str, Any]:
    """What ``run.json`` keeps of a manifest."""
    return {"files": lines.count(b"\n"), "sha256": hashlib.sha256(lines).hexdigest()}


def page_files(folder: Path) -> dict[str, str]:
    """The files that the page's list names, with their digests; none where there is no list, or a damaged one."""
    try:
        return dict(read_sealed_json(read_regular(folder / PAGE))["files"])
    except (OSError, ValueError):
        return {}


def page(folder: Path, files: Mapping[str, bytes]) -> bytes:
    """The list of a page and what it shows, and the digest of the results that it is drawn from."""
    listed = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    results = folder / RESULTS
    return sealed_json({"files": listed, "results": digest(results) if results.is_file() else None})


def problems(folder: Path) -> list[str]:
    """What is wrong with a run folder; empty when the run is complete and everything in it is as it was written."""
    try:
        return list(_problems(folder))
    except OSError as error:
        return [f"{error.filename or folder} cannot be read: {error.strerror}"]


def _problems(folder: Path) -> Iterator[str]:
    if not (folder / RUN).is_file():
        yield f"{folder} holds no run: it has no {RUN}"
        return
    data = read_regular(folder / RUN)
    if older.is_of_0_1(data):
        yield from older.problems(folder)
        return
    try:
        facts = read_sealed_json(data)
    except ValueError as error:
        yield f"{RUN} is damaged: {error}"
        return
    if facts.get("status") != "complete":
        yield f"the run is {facts.get('status')}: continue it with the same command"
        return
    wanted: dict[str, str] = {}
    for read in (_of_the_run, _of_the_page):
        try:
            wanted |= read(folder, facts)
        except RunError as error:
            yield str(error)
    yield from _compared(folder, wanted)


def digest_of(folder: Path, name: str) -> str | None:
    """The digest of a file of a finished run, by the list that it belongs to; None where that does not name it.

    RunError where the list is missing or damaged.
    """
    data = read_regular(folder / RUN)
    if older.is_of_0_1(data):
        return older.digests(folder).get(name)
    of_the_run = name == RESULTS or _is_unit(name)
    facts = read_sealed_json(data)
    return (_of_the_run(folder, facts) if of_the_run else _of_the_page(folder, facts)).get(name)


def _of_the_run(folder: Path, facts: Mapping[str, Any]) -> dict[str, str]:
    """The digests of units and results."""
    path = folder / MANIFEST
    try:
        lines = read_regular(path)
    except OSError as error:
        raise RunError(f"{MANIFEST} is missing ({error.strerror})") from error
    if root(lines) != facts.get("root"):
        raise RunError(f"{MANIFEST} has been changed since the run: {RUN} holds another digest")
    held = [json.loads(line) for line in lines.splitlines()]
    return {line["file"]: line["sha256"] for line in held}


def _of_the_page(folder: Path, facts: Mapping[str, Any]) -> dict[str, str]:
    """The digests of the page and its media. RunError also for the page of another run."""
    again = f"draw the page again with cos report draw {folder}"
    try:
        held = read_sealed_json(read_regular(folder / PAGE))
        files = dict(held["files"])
    except OSError as error:
        raise RunError(f"{PAGE} is missing ({error.strerror}): {again}") from error
    except ValueError as error:
        raise RunError(f"{PAGE} is damaged ({error}): {again}") from error
    try:
        results = _of_the_run(folder, facts).get(RESULTS)
    except RunError:  # which is named by itself
        return files
    if held.get("results") != results:
        raise RunError(f"{PAGE} and what it lists are a page of other results than those of this run: {again}")
    return files


def _compared(folder: Path, wanted: Mapping[str, str]) -> Iterator[str]:
    there = set(entries(folder))
    for name, sha in wanted.items():
        if name not in there:  # a name that leads out of the folder is not there either
            yield f"{name} is missing"
        elif digest(folder / name) != sha:
            yield f"{name} has been changed since it was written"
        elif name.endswith(f"/{RUN}"):
            part = Path(name).parent
            yield from (f"{part}: {problem}" for problem in problems(folder / part))
    for name in sorted(there - {*wanted, *LISTS}):
        yield f"{name} was added to the run"
