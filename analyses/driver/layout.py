"""The parts of a page as its template takes them, within a size that can be sent: what does not fit stays in the run's media/."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cos_interp.analyses.driver.kept import READ
from cos_interp.analyses.driver.parts import MOST_SHADES, Clip, Link, Overlay, Reel, Section, Shown
from cos_interp.analyses.driver.reading import read_cells
from cos_interp.reports.drawing import Curves, Maps, Numbers, Points, of_items, plain
from cos_interp.reports.explored import MOST_SAID, explored
from cos_interp.reports.html import data_uri, drawing, embedded, worded
from cos_interp.reports.style import brief
from cos_interp.tasks.video import played_at

LARGEST = 8_000_000  # bytes of a page
AROUND = 200_000  # of them for style, script and words
WIDE = 700  # points of a figure, from which on it stands alone on the first screen
MOST_ROWS = 500  # of a table on the page
MOST_CHOICES = 9  # different values of a column of an item table, from among which rows are chosen
BESIDE = 4  # clips side by side that have room beside the figure of the first screen
OPEN = 3  # reels of a section that are open at once: of more only the first is
LONGEST_BAR = 80  # pixels
MOST_NAMED = 32  # clips in the alternative text of a picture
COUNTED = ("n", "step", "layer", "head", "frame")  # columns of whole numbers, were they only 0 and 1
UNREAD = "What is read is not drawn in: the scorer of these videos says its verdict and reason, and no places."
FURTHEST = 3  # items that are named on the first screen


@dataclass
class Budget:
    """Bytes that are left for what a page can do without. Parts ask in the order of their worth."""

    left: float

    def takes(self, size: int) -> bool:
        """Whether so many bytes fit; if so they are taken."""
        fits = size <= self.left
        self.left -= size if fits else 0
        return fits


def laid_out(sections: Sequence[Section], rate: float | None = None, reads: bool = False) -> dict[str, Any]:
    """``sections`` for the template, ``key``, the section whose figure is on the first screen, ``example``, its reel,
    ``stacked``, whether that has no room beside the figure, ``listed``, the section with a table whose rows lead to videos, and
    ``reels``, their ids by name.

    ``reads``: whether the tasks' verifier reads the clips, so that this is drawn into them. Figures and tables come first, then
    the data by which figures are explored, the example, the other reels, the clips.
    """
    made = [_plain(number_, s, rate, reads) for number_, s in enumerate(sections)]
    size = sum(len(s["figure"]) + len(str(s["table"])) * 2 + len(str(s["numbers"])) * 2 for s in made)
    size += sum(len(reel["data"].encode()) + len(str(reel["said"])) * 2 for s in made for reel in s["reels"])
    budget = Budget(LARGEST - AROUND - size)
    reels = {r.name: made[i]["reels"][j]["id"] for i, s in enumerate(sections) for j, r in enumerate(s.reels)}
    for section, out in zip(sections, made, strict=True):
        out["explored"] = _explorable(section, reels, budget)
        _link(out["table"], reels)
    held = [(r, out["reels"][j]) for s, out in zip(sections, made, strict=True) for j, r in enumerate(s.reels)]
    for reel, out in held:
        uri = data_uri(reel.data, "image/webp")
        out["uri"] = uri if budget.takes(len(uri)) else ""
    for section, out in zip(sections, made, strict=True):
        for clip, shown in zip(section.clips, out["clips"], strict=True):
            uri = data_uri(clip.file(rate), "image/png" if clip.still else "video/mp4")
            shown["uri"] = uri if budget.takes(len(uri)) else ""
    drawn = [out for s, out in zip(sections, made, strict=True) if s.figure]
    key = next((out for s, out in zip(sections, made, strict=True) if s.key and s.figure), drawn[0] if drawn else None)
    shown, example = next(((reel, out) for reel, out in held if not reel.looked_up), (None, None))
    many = shown is not None and not shown.along and len(shown.rows) > BESIDE
    for part in (key, example):
        if part is not None:
            part["above"] = True
    listed = next((out["id"] for out in made if _leads(out["table"])), None)
    stacked = many or (key is not None and key["wide"])
    return {"sections": made, "key": key, "example": example, "stacked": stacked, "listed": listed, "reels": reels}


def counterexamples(items: Sequence[tuple[str, float]], reels: Mapping[str, str]) -> list[dict[str, Any]]:
    """The first of some items, with the place of the clips of each; where none of them has clips, the first that has, too.

    ``reels``: the ids of reels by their names, which begin with that of their item.
    """
    place = lambda item: next((at for name, at in reels.items() if name == item or name.startswith(f"{item}-")), None)
    made = [{"name": name, "value": value, "link": place(name)} for name, value in items]
    seen = next((one for one in made if one["link"]), None)
    return made[:FURTHEST] + ([seen] if seen and seen not in made[:FURTHEST] else [])


def _leads(table: dict[str, Any] | None) -> bool:
    """Whether a row of a table leads to its videos."""
    return table is not None and any(value["link"] for row in table["rows"] for value in row)


def _is_wide(svg: str) -> bool:
    """Whether a drawing would be too small to be read beside something."""
    found = re.match(r'<svg [^>]*?width="([0-9.]+)pt"', svg)
    return found is not None and float(found[1]) > WIDE


def _plain(place: int, section: Section, rate: float | None, reads: bool) -> dict[str, Any]:
    """A section without what depends on the room that is left."""
    figure = section.figure
    svg = "" if figure is None else figure.svg
    return {
        "id": f"part-{place}", "title": section.title, "caption": _caption(section), "above": False,
        "figure": drawing(svg), "wide": _is_wide(svg), "explored": None,
        "alt": brief(f"{section.title}: {figure.shown.words()}" if figure else section.title, MOST_SAID),
        "numbers": _table(figure.table) if figure else None,
        "reels": [
            _reel(f"reel-{place}-{j}", section, reel, rate, reads) | {"folded": j > 0 and len(section.reels) > OPEN}
            for j, reel in enumerate(section.reels)
        ],
        "clips": [
            {"name": c.name, "text": c.text, "kind": "image" if c.still else "video", "file": media_name(section, c)}
            for c in section.clips
        ],
        "table": None if section.table is None else _table(section.table),
    }  # fmt: skip


def _caption(section: Section) -> str:
    """The caption, with how many items each mark of its figure is of, and of which kind their intervals are."""
    shown = section.figure.shown if section.figure else None
    said = [section.caption]
    if isinstance(shown, Curves | Numbers) and (counted := shown.counted()):
        said.append(f"Of each mark {counted}.")
    if isinstance(shown, Maps) and (counted := shown.counted() or of_items(section.of)):
        said.append(f"Of each cell {counted}.")
    if isinstance(shown, Curves) and shown.cut:
        said.append("Triangles at the edge: a curve or its interval goes on outside of the picture, as its numbers say.")
    return " ".join(filter(None, said))


def _explorable(section: Section, reels: dict[str, str], budget: Budget) -> dict[str, Any] | None:
    """What is explored of a figure, with its data for the script, if it has room."""
    shown = section.figure.shown if section.figure else None
    made = explored(shown, reels) if isinstance(shown, Maps | Curves | Points) else None
    if made is None:
        return None
    data, drawn = embedded(made.data), embedded([made.grids, made.plots, made.told])
    return vars(made) | {"json": data} if budget.takes(len(data.encode()) + 2 * len(drawn.encode())) else None


def _reel(name: str, section: Section, reel: Reel, rate: float | None, reads: bool) -> dict[str, Any]:
    sheet = reel.sheet
    rows = [{"name": row.name, "at": dict(row.at) or None} for row in reel.rows]
    made = reel.clips.shape[1]  # of which a sheet may show some
    fps = played_at(made, rate) * len(sheet.frames) / made
    data = {
        "kind": "reel", "name": reel.name, "along": reel.along, "mark": reel.mark, "fps": fps,
        "height": sheet.height, "width": sheet.width, "frames": list(sheet.frames), "rows": rows,
        "over": _over(reel.over, sheet.frames),
        "read": read_cells(reel.clips, sheet.frames) if reads and reel.over is None and not reel.looked_up else None,
    }  # fmt: skip
    told = [", ".join([row.name, *(f"{k} {worded(v)}" for k, v in row.told.items())]) for row in reel.rows[:MOST_NAMED]]
    words = "; ".join(brief(row, MOST_SAID) for row in told)
    return {
        "id": name, "name": reel.name, "text": reel.text, "data": embedded(data), "file": media_name(section, reel),
        "width": sheet.width * len(sheet.frames), "height": sheet.height * sheet.rows, "above": False,
        "looked_up": reel.looked_up, "said": [_said(row) for row in reel.rows], "along": reel.along, "mark": reel.mark,
        "frames": len(sheet.frames), "axes": reel.over.axes if reel.over and data["over"] else {},
        "reads": data["read"] is not None, "unread": "" if reads or not _judged(reel) else UNREAD,
        "alt": f"rows from above: {words}; columns: pixel frames {', '.join(map(str, sheet.frames))}",
    }  # fmt: skip


def _said(row: Shown) -> dict[str, Any]:
    """What is said of a clip: a line each; the bars, of pixels, with their words."""
    told = [f"{name}: {worded(plain(value))}" for name, value in _known(row.told).items()]
    bars = [(round(LONGEST_BAR * max(0.0, share)), f"{name} {share:.2f}") for name, share in _known(row.bars).items()]
    return {"name": row.name, "told": told, "bars": bars}


def _judged(reel: Reel) -> bool:
    """Whether there is a verdict on a clip."""
    return any(name in row.told for row in reel.rows for name in READ.values())


def _over(over: Overlay | None, frames: Sequence[int]) -> dict[str, Any] | None:
    """Maps over the frames of a sheet; None where there are none, or more than a page should hold."""
    if over is None or over.maps.size > MOST_SHADES:
        return None
    return {
        "shape": list(over.maps.shape[-3:]), "frames": [over.frames[frame] for frame in frames],
        "tops": list(map(worded, over.tops)), "shades": base64.b64encode(over.shades).decode(),
        "tokens": [list(token) for token in over.tokens],
    }  # fmt: skip


def _known(told: Any) -> dict[str, Any]:
    """What is said, without what is not known: JSON has no NaN."""
    return {k: v for k, v in told.items() if v is not None and not (isinstance(v, float) and not math.isfinite(v))}


# --- tables and names ------------------------------------------------------------------------------------------------


def _table(table: pd.DataFrame) -> dict[str, Any]:
    shown = table.head(MOST_ROWS)
    columns = [[_value(v, counts) for v in shown.iloc[:, at]] for at, counts in enumerate(map(_counts, table.items()))]
    rows = [list(row) for row in zip(*columns, strict=True)]
    items = any(value["link"] for row in rows for value in row)
    return {
        "columns": [{"name": str(c), "choices": items and _few(some)} for c, some in zip(table.columns, columns, strict=True)],
        "rows": rows, "left_out": max(0, len(table) - MOST_ROWS),
    }  # fmt: skip


def _few(column: Sequence[dict[str, Any]]) -> bool:
    """Whether a column of items tells few of them apart: their task, difficulty, verdict, but no number that is measured."""
    told = {value["text"] for value in column}
    return 1 < len(told) <= MOST_CHOICES and len(told) < len(column) and all(_sorts(value) for value in column)


def _sorts(value: dict[str, Any]) -> bool:
    """Whether a cell is of a kind: text, or a whole number."""
    return value["raw"] is None or "." not in value["text"]


def _counts(column: tuple[Any, pd.Series]) -> bool:
    """Whether a column of floats counts, or is of places: integers, which are floats only where some of them are missing."""
    name, values = column
    if not pd.api.types.is_float_dtype(values):
        return False
    known = values.dropna()
    return bool((np.isfinite(known) & (known == known.round())).all()) and (name in COUNTED or bool((known.abs() > 1).any()))


def _value(value: Any, counted: bool) -> dict[str, Any]:
    """A cell: its text, the number that it is sorted by, the reel that it leads to."""
    if counted and not _missing(value):
        value = int(value)
    counts = isinstance(value, (int, float)) or hasattr(value, "item")
    raw = None if not counts or _missing(value) or isinstance(value, bool) else f"{float(value):.9g}"
    return {"text": worded(value.text if isinstance(value, Link) else value), "raw": raw, "link": getattr(value, "reel", None)}


def _link(table: dict[str, Any] | None, reels: dict[str, str]) -> None:
    for row in table["rows"] if table else ():
        for value in row:
            value["link"] = reels.get(value["link"])


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or value != value


def media_name(section: Section, part: Clip | Reel) -> str:
    """The file of a clip or reel in media/."""
    kind = "webp" if isinstance(part, Reel) else "png" if part.still else "mp4"
    return f"{file_name(section.title)}-{file_name(part.name)}.{kind}"


def file_name(text: str) -> str:
    """A file name from free text: letters, digits and dashes only."""
    return "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in text.lower()).split())[:60] or "clip"
