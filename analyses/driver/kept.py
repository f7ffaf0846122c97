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
KEPT, SMALL = 3, 4_000_000  # items of a task whose clips are kept where a clip has at most so many bytes; else the first
Clip = tuple[str, int | None, np.ndarray]  # what it is, the place of its row in the unit, [pixel frame, height, width, 3]
Where = Mapping[str, str | int]


def keeps(index: int, clip_bytes: int) -> bool:
    """Whether an item, by its place in its task, keeps its clips, of so many bytes each: of several items one may go the other
    way. What a run takes on the disk is planned by this."""
    return index < (KEPT if clip_bytes <= SMALL else 1)


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


def _right(row: Row) -> Row:
    return row if row.get("solved") is None else {**row, "outcome": "right" if row["solved"] else "not right"}


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
            return column, f"{words} ({error})" if error and error == error else words
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


def linked(names: Iterable[str], reels: Iterable[Reel]) -> list[Link | str]:
    """Names of items, each of which leads to its clips where these are shown."""
    there = {reel.name for reel in reels}
    return [Link(name, name) if name in there else name for name in names]


def videos(
    rows: pd.DataFrame, label: Callable[[Row], str | None], reels: Sequence[Reel], item: str = "problem"
) -> pd.DataFrame | None:
    """What is read in the videos that the page shows, a row an item: it leads to its clips where they were kept. ``label``: what
    the video of a row is. Where to look for the item that goes the other way. None where nobody judged."""
    out: dict[str, dict[str, Any]] = {}
    shown = {row.name for reel in reels for row in reel.rows}
    for row in rows.to_dict("records"):
        name, verdict = label(row), reads(row)
        if name in shown and verdict is not None:
            out.setdefault(row[item], {})[name] = verdict[1]
    return (
        pd.DataFrame([{"item": item, **read} for item, read in zip(linked(out, reels), out.values(), strict=True)])
        if out
        else None
    )
