"""The clips that units keep for their page, each with the row that was measured of it: a player says what is read there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.facts import PIXELS, Showing
from cos_interp.analyses.driver.parts import Link, Reel, Shown
from cos_interp.analyses.driver.store import Row, RunStore

FRAMES = "frames"  # the tensor of the clips
READ = {"outcome": "answer", "whose": "answer", "status": "reads"}  # columns of verdicts, in words
ANSWERS = {"target": "its own", "donor": "the donor's", "other": "another one", "undecided": "none that can be read"}
MOST, ROOM = 8, 12_000_000  # items of a task whose clips are kept, and bytes that one clip of each of them may take together
ABOUT = ("task", "difficulty")  # columns of an item, by which a reader looks for it
Clip = tuple[str, int | None, np.ndarray]  # what it is, the place of its row in the unit, [pixel frame, height, width, 3]
Where = Mapping[str, str | int]


def keeps(index: int, clip_bytes: int) -> bool:
    """Whether an item, by its place in its task, keeps its clips, of so many bytes each: of several items one may go the other
    way. The first does, however large. What a run takes on the disk is planned by this."""
    return index < max(1, min(MOST, ROOM // max(1, clip_bytes)))


def kept(clips: Sequence[Clip]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a unit that keeps some clips, all of one size, and what its facts (a :class:`Showing`) say of them."""
    if not clips:
        return {}, {}
    names, places, frames = zip(*clips, strict=True)
    about = {"axes": {FRAMES: ("clip", *PIXELS)}, "shown": names, "of_rows": places}
    return {FRAMES: torch.from_numpy(np.stack(frames))}, about


@dataclass(frozen=True)
class Kept:
    """What a unit kept: ``clips [clip, pixel frame, height, width, 3]``, what each is, and its row (empty where it has none)."""

    unit: str
    prompt: str
    clips: np.ndarray
    names: Sequence[str]
    rows: Sequence[Row]

    def reel(
        self, name: str = "", say: Mapping[str, str] | None = None, at: Callable[[str, Row], Where] | None = None,
        only: Iterable[int] | None = None, text: str = "", **ways: Any,
    ) -> Reel:  # fmt: skip
        """The clips beside each other, with what is read in each. ``say``: columns of the rows by the words for them; ``at``: the
        place of a clip in the figures; ``only``: some of the clips; ``ways`` of :class:`Reel`."""
        places = range(len(self.names)) if only is None else list(only)
        rows = [
            Shown(self.names[k], told(self.rows[k], say or {}), at(self.names[k], self.rows[k]) if at else {}) for k in places
        ]
        return Reel(name or self.unit, text or f"“{self.prompt}”", self.clips[list(places)], rows, **ways)


def right(one: Kept) -> Kept:
    """The same where rows say by a column ``solved`` alone whether their video is right."""
    return replace(one, rows=[_right(row) for row in one.rows])


def told_right(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows as those of :func:`right`."""
    return pd.DataFrame([_right(row) for row in rows.to_dict("records")])


def _right(row: Row) -> Row:
    solved = row.get("solved")
    if solved is None or solved != solved:
        return row
    return {**row, "outcome": "right" if solved else _with_error("not right", row.get("error"))}


def _with_error(words: str, error: str | None) -> str:
    """A verdict with the kind of mistake, where that is known."""
    return f"{words} ({error})" if error and error == error else words


def told(row: Row, say: Mapping[str, str]) -> dict[str, Any]:
    """What is said of a clip: the verdict on it, and some numbers of its row, by the words for them."""
    verdict = reads(row)
    found = {} if verdict is None else {READ[verdict[0]]: verdict[1]}
    return found | {words: row[column] for words, column in say.items() if row.get(column) is not None}


def reads(row: Row) -> tuple[str, str] | None:
    """The column of the verdict on a row's video and the verdict, with the kind of mistake; None where nobody judged."""
    for column in READ:
        if (verdict := row.get(column)) is not None and verdict == verdict:
            error = row.get("error") if column == "status" and verdict != "solved" else None
            words = str(verdict) if column == "status" else ANSWERS.get(verdict, str(verdict))
            return column, _with_error(words, error)
    return None


def kept_clips(result: AnalysisResult, store: RunStore, kind: type[Showing] = Showing) -> Iterator[Kept]:
    """Of every unit that kept clips. Those of a run that does not yet say of which rows they are have no rows."""
    for unit, facts in result.units_of(kind).items():
        if not facts.shown or FRAMES not in facts.axes:
            continue
        held = store.finished(unit)[0]
        places = facts.of_rows or (None,) * len(facts.shown)
        rows = [{} if place is None else held[place] for place in places]
        yield Kept(unit, getattr(facts, "prompt", ""), store.tensors(unit)[FRAMES].numpy(), facts.shown, rows)


def first_items(rows: pd.DataFrame) -> list[str]:
    """The first items of each task of a run, of which a page shows clips where every unit has its own."""
    items = rows.drop_duplicates("problem")
    return list(items.problem[items.groupby("task").cumcount() < MOST])


def linked(names: Iterable[str], reels: Iterable[Reel]) -> list[Link | str]:
    """Names of items, each of which leads to its clips where these are shown."""
    there = {reel.name for reel in reels}
    return [Link(name, name) if name in there else name for name in names]


def listed(told: pd.DataFrame, rows: pd.DataFrame, reels: Iterable[Reel]) -> pd.DataFrame:
    """What is told of each item (``told``, indexed by them) as the table that leads to their clips, with the task and difficulty
    of each, of ``rows``, which have a column of the index's name."""
    known = [column for column in ABOUT if column in rows and column not in told]
    about = rows.groupby(str(told.index.name), sort=False)[known].first().reindex(told.index).dropna(axis=1, how="all")
    table = pd.concat([about, told], axis=1).reset_index(drop=True)
    table.insert(0, "item", linked(told.index, reels))
    return table


def videos(
    rows: pd.DataFrame, label: Callable[[Row], str | None], reels: Sequence[Reel], item: str = "problem",
    beside: pd.DataFrame | None = None,
) -> pd.DataFrame | None:  # fmt: skip
    """What is read in the videos that the page shows, a row an item: it leads to its clips where they were kept. ``label``: what
    the video of a row is; ``beside``: numbers of the items, which index it. Where to look for the item that goes the other way.
    None where nobody judged and there are no numbers."""
    out: dict[str, dict[str, Any]] = {}
    shown = {row.name for reel in reels for row in reel.rows}
    for row in rows.to_dict("records"):
        name, verdict = label(row), reads(row)
        if name in shown and verdict is not None:
            out.setdefault(row[item], {})[name] = verdict[1]
    read = pd.DataFrame.from_dict(out, "index")
    made = [part for part in (read, beside) if part is not None and len(part)]
    return listed(pd.concat(made, axis=1).rename_axis(item), rows, reels) if made else None
