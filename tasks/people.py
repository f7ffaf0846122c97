"""Verdicts by people: a CSV file with a line a video."""

from __future__ import annotations

import csv
from difflib import get_close_matches
from pathlib import Path

from cos_interp.interp.errors import InterpError
from cos_interp.tasks.item import Verdict
from cos_interp.tasks.scorer import STATUSES

COLUMNS = ("video", "status", "answer", "error")  # the last two may be missing


def read_labels(path: Path, option: str) -> dict[str, Verdict]:
    """Verdicts by the relative path of a video, of a file with the columns ``video,status`` and, if known, ``answer,error``.

    A line without a status is a video that nobody has looked at, and is left out. InterpError names the line that does not fit.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            lines, held = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InterpError(f"{option} {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not {"video", "status"} <= set(held):
        raise InterpError(f"{option} {path} has the columns {', '.join(held) or 'of an empty file'}: write video,status,answer")
    for name in held:  # others are the people's own notes
        if name not in COLUMNS and (meant := get_close_matches(name.strip().lower(), COLUMNS, 1, 0.7)):
            raise InterpError(f"{option} {path} has the column {name!r}: {meant[0]} must be written so; name notes otherwise")
    found: dict[str, Verdict] = {}
    for number, line in enumerate(lines, 2):
        where, status = f"{option} {path}, line {number}", (line["status"] or "").strip()
        if not status:
            continue
        if status not in STATUSES:
            raise InterpError(f"{where}: the status is {status!r}; there are {', '.join(STATUSES)}")
        if line["video"] in found:
            raise InterpError(f"{where}: {line['video']} stands there twice")
        found[line["video"]] = Verdict(status, line.get("error") or "", line.get("answer") or "")  # type: ignore[arg-type]
    return found
