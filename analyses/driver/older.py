"""Runs of version 0.1: read and drawn, not continued. Their ``run.json`` has no format and no seal, their units no kind of facts,
and the only digests are those of the manifest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.facts import Facts
from cos_interp.interp.files import read_regular, read_sealed_json

REFUSAL = "it was made by version 0.1, whose runs can be read and drawn, but not continued"
KEYS = {"analysis", "config", "model", "status", "versions"}


def is_of_0_1(data: bytes) -> bool:
    """Whether these are the bytes of a ``run.json`` of 0.1."""
    try:
        held = json.loads(data)
    except ValueError:
        return False
    return (
        isinstance(held, dict)
        and set(held) >= KEYS
        and isinstance(held["model"], dict)
        and not set(held) & {"format", "seal", "root"}
    )


def facts(data: bytes) -> dict[str, Any]:
    """``run.json`` of 0.1, marked as what it is, with what it did not yet say."""
    held = json.loads(data)
    return {**held, "format": 1, "model": {"given": False, **held["model"]}}


def digests(folder: Path) -> dict[str, str]:
    """The digests of the manifest of 0.1, and of a page drawn since; RunError where it is missing or damaged."""
    path = folder / "manifest.jsonl"
    try:
        lines = [json.loads(line) for line in read_regular(path).splitlines()]
        return {str(line["file"]): str(line["sha256"]) for line in lines} | _drawn_since(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is missing or damaged ({error}), and a run of version 0.1 has no other digests") from error


def _drawn_since(folder: Path) -> dict[str, str]:
    """The digests of a page that this version drew."""
    try:
        return dict(read_sealed_json(read_regular(folder / "page.json"))["files"])
    except FileNotFoundError:
        return {}


def is_intact(folder: Path, name: str, data: bytes) -> bool:
    """Whether a file of a run of 0.1 is what its manifest says; False in any other folder."""
    try:
        return is_of_0_1(read_regular(folder / "run.json")) and digests(folder).get(name) == sha256(data).hexdigest()
    except (OSError, RunError):
        return False


def problems(folder: Path) -> Iterator[str]:
    """What is wrong with a run of 0.1, as far as its manifest knows."""
    if (status := facts(read_regular(folder / "run.json"))["status"]) != "complete":
        yield f"the run is {status}, and {REFUSAL}"
        return
    try:
        wanted = digests(folder)
    except RunError as error:
        yield str(error)
        return
    for name, digest in wanted.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            yield f"{name} is missing"
        elif sha256(read_regular(path)).hexdigest() != digest:
            yield f"{name} has been changed since it was written"


def facts_of(kinds: Iterable[type[Facts]], held: Mapping[str, Any], where: str) -> Facts:
    """The facts of a unit of 0.1, as the first kind of record that they fit; the experiment's own kinds first."""
    for kind in reversed(list(kinds)):
        try:
            return kind.model_validate(held)
        except ValidationError:
            continue
    raise RunError(f"{where}, of version 0.1, holds {', '.join(held)}, which no record of this version has: run it again")
