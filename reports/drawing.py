"""A figure with the numbers that it shows: for the table behind it, its alternative text, and for exploring it on the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cos_interp.reports.style import Picture, picture

VALUE = "value"
REELS = "reels"  # a column of cells: the names of the reels in which a cell can be seen
INTERVAL = "interval"  # a column of marks: of which kind the interval from low to high is, in words
STOPS = 33  # colours of a scale


@dataclass(frozen=True)
class Maps:
    """Heat maps with one scale. ``cells``: a row a cell; its columns ``panel``, ``y`` and ``x`` are its address, ``value`` is
    coloured, the others are shown with it (``low`` and ``high`` as the interval of the column before them). ``names``: by axis,
    what stands at a place that is more than its address, and ``corner``, what stands at the axes, y first."""

    cells: pd.DataFrame
    x: str
    y: str
    panel: str
    label: str
    low: float
    high: float
    colours: Sequence[str] = ()
    names: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)
    corner: str = ""

    @classmethod
    def of(cls, tables: Sequence[tuple[str, pd.DataFrame]], x: str, y: str, panel: str, **scale: Any) -> Self:
        """From tables: rows are y, columns x. ValueError for two rows or columns of one name, which would be one on the page."""
        for title, table in tables:
            if not (table.index.is_unique and table.columns.is_unique):
                named = f"rows {list(table.index)} and columns {list(table.columns)}"
                raise ValueError(f"{title}: {named} must each have names of their own")
        rows = [
            {panel: title, y: index, x: column, VALUE: table.iat[i, j]}
            for title, table in tables for i, index in enumerate(table.index) for j, column in enumerate(table.columns)
        ]  # fmt: skip
        return cls(pd.DataFrame(rows, columns=[panel, y, x, VALUE]), x, y, panel, **scale)

    def with_cells(self, cells: pd.DataFrame) -> Self:
        """The same maps with more said of each cell."""
        return replace(self, cells=cells)

    def counted(self) -> str:
        """How many items the cells are of, in words, and of which kind their intervals are; nothing where they do not say."""
        return _counted(self.cells)

    def words(self) -> str:
        """Range and largest value, in words."""
        known = self.cells[self.cells[VALUE].notna()]
        if known.empty:
            return "no values"
        top = known.iloc[int(known[VALUE].astype(float).to_numpy().argmax())]
        at = ", ".join(f"{name} {plain(top[name])}" for name in (self.panel, self.y, self.x) if str(top[name]))
        values = known[VALUE].astype(float)
        return f"{self.label or VALUE} from {values.min():.2f} to {values.max():.2f}; the largest at {at}"


@dataclass(frozen=True)
class Curves:
    """Curves with bands. ``points``: columns panel, curve, ``along``, mean, low, high, n, interval, as far as there are such.
    ``label``: what is along the curves, where that is not the column, and ``names`` of its places. ``cut``: a curve or its band
    goes on outside of the picture."""

    points: pd.DataFrame
    along: str
    label: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False

    def counted(self) -> str:
        """As :meth:`Maps.counted`."""
        return _counted(self.points)

    def words(self) -> str:
        """First and last value of the first curves, in words."""
        said = []
        for (panel, name), part in list(self.points.groupby(["panel", "curve"], sort=False))[:4]:
            known = part[part["mean"].notna()]
            if len(known):
                first, last = known.iloc[0], known.iloc[-1]
                where = ", ".join(filter(None, [str(panel), str(name)])) or "the curve"
                values = f"{first['mean']:.2f} at {self.along} {plain(first[self.along])}"
                said.append(f"{where}: {values}, {last['mean']:.2f} at {plain(last[self.along])}")
        return "; ".join(said) or "no values"


@dataclass(frozen=True)
class Points:
    """The same points in several maps. ``places [map, point, 2]``; ``about``: a row a point, what is said of it (REELS: as of
    cells); ``address``: the columns by which a point is chosen, the first of which says what belongs together (``joined``: by a
    line, in the order of the rows). ``paint``: the colour of each point, a place in ``colours``, below 0 for none; ``legend``:
    names of colours, or the ends of a scale."""

    maps: Sequence[str]
    places: np.ndarray
    about: pd.DataFrame
    address: Sequence[str]
    label: str
    paint: Sequence[int]
    colours: Sequence[str]
    legend: Sequence[str]
    joined: bool = False

    def table(self) -> pd.DataFrame:
        """A row a point and map."""
        about = self.about.drop(columns=REELS, errors="ignore")
        return pd.concat(
            [about.assign(map=name, x=at[:, 0], y=at[:, 1]) for name, at in zip(self.maps, self.places, strict=True)]
        )

    def words(self) -> str:
        """How many points, coloured by what."""
        return f"{len(self.about)} points in {len(self.maps)} maps, coloured by {self.label}: {', '.join(self.legend)}"


def of_items(counts: Sequence[float] | pd.Series) -> str:
    """So many items a point, from fewest to most.

    >>> of_items([4, 7, 4]), of_items([4]), of_items([])
    ('n = 4 to 7', 'n = 4', '')
    """
    known = sorted({int(count) for count in counts})
    return f"n = {known[0]} to {known[-1]}" if len(known) > 1 else f"n = {known[0]}" if known else ""


def _counted(marks: pd.DataFrame) -> str:
    """So many items a mark, and of which kind the intervals are that are drawn."""
    drawn = marks[marks["low"].notna()] if "low" in marks else marks.iloc[:0]
    kinds = sorted(set(drawn[INTERVAL].dropna())) if INTERVAL in drawn else []
    said = ": ".join(filter(None, ["95 % interval", " or ".join(kinds)])) if len(drawn) else ""
    return "; ".join(filter(None, [of_items(marks["n"].dropna() if "n" in marks else ()), said]))


@dataclass(frozen=True)
class Numbers:
    """The numbers of any other figure, a row a mark."""

    table: pd.DataFrame = field(default_factory=pd.DataFrame)

    def counted(self) -> str:
        """As :meth:`Maps.counted`."""
        return _counted(self.table)

    def words(self) -> str:
        """The first marks, in words."""
        rows = self.table.head(4).itertuples(index=False)
        return "; ".join(" ".join(str(plain(v)) for v in row) for row in rows) or "no values"


@dataclass(frozen=True)
class Drawing:
    """A figure that knows what it shows. ``draw`` makes it, within the style, when its picture is asked for: a page asks for
    those of all its figures at once, of several processes."""

    draw: Callable[[], Figure]
    shown: Maps | Curves | Points | Numbers

    @cached_property
    def picture(self) -> Picture:
        """Drawn once, in the style that holds then."""
        return picture(self.draw)

    @property
    def svg(self) -> str:
        """The picture as an ``<svg>`` element; the same numbers give the same bytes."""
        return self.picture.svg

    def explored(self, cells: pd.DataFrame) -> Drawing:
        """The same picture of maps with more said of each cell."""
        assert isinstance(self.shown, Maps)
        return replace(self, shown=self.shown.with_cells(cells))

    @property
    def table(self) -> pd.DataFrame:
        """A row a mark."""
        if isinstance(self.shown, Maps):
            return self.shown.cells.drop(columns=REELS, errors="ignore").rename(columns={VALUE: self.shown.label or VALUE})
        if isinstance(self.shown, Points):
            return self.shown.table()
        return self.shown.points if isinstance(self.shown, Curves) else self.shown.table


def plain(value: Any) -> Any:
    """For JSON: numbers of four digits, None for what is missing or not finite, everything else as text in one line."""
    if value is None or value is pd.NA or value != value or value in (math.inf, -math.inf):
        return None
    if isinstance(value, bool):
        return value
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return int(value) if value.is_integer() else float(f"{value:.4g}")
    return value if isinstance(value, int) else " ".join(str(value).split())
