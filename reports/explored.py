"""A figure as a page lets it be explored: places for the page's script, and what its template draws for it, all in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from seaborn.utils import relative_luminance

from cos_interp.reports.drawing import INTERVAL, REELS, VALUE, Curves, Maps, Points, plain
from cos_interp.reports.html import worded
from cos_interp.reports.style import brief

NO_CLASS = "#8a8c96"  # of points of no class
EVEN = 0.179  # luminance of a colour on which black and white have the same contrast, 4.6: WCAG asks for 4.5
WRITTEN = 10  # columns of a map, up to which a cell has room for its number
MOST_SAID = 400  # characters that are read out: of a cell, of an alternative text, of a clip in it
SIDE, EDGE = 500, 20  # of a map of points: a side, and what is left free along it
HINT = "Point at a {}, or move with the arrow keys, for its numbers; click or press Enter to choose it."
Reels = Mapping[str, str]  # the ids of the page's reels by name


@dataclass(frozen=True)
class Explored:
    """``data``: for the script. For the template: ``grids``, the tables of heat maps; ``plots``, maps of points with the place of
    each, in pixels of a square of ``SIDE``, and its colour; ``told``, of each place of curves what they are there; ``scale``, the
    ends and colours of one; ``legend``, colours and what they mean, of ``label``; ``hint``: what a reader can do."""

    data: dict[str, Any]
    grids: list[dict[str, Any]] = field(default_factory=list)
    plots: list[dict[str, Any]] = field(default_factory=list)
    told: list[list[tuple[str, str]]] = field(default_factory=list)
    scale: dict[str, Any] | None = None
    legend: list[tuple[str, str]] = field(default_factory=list)
    label: str = ""
    hint: str = ""


def explored(shown: Maps | Curves | Points, reels: Reels) -> Explored | None:
    """What can be explored of a figure on a page with such reels; None of curves with fewer than two places."""
    if isinstance(shown, Maps):
        return _maps(shown, reels)
    return _curves(shown) if isinstance(shown, Curves) else _points(shown, reels)


def _maps(shown: Maps, reels: Reels) -> Explored:
    names = [shown.panel, shown.y, shown.x]
    rows = _rows(shown.cells)
    made = [_cell(shown, row, ids) for row, ids in zip(rows, _seen(shown.cells, reels), strict=True)]
    cells = {cell["at"]: cell for cell in made}
    grids = [_grid(shown, panel, cells) for panel in dict.fromkeys(row[shown.panel] for row in rows)]
    order = [cell for one in grids for line in one["lines"] for cell in line["cells"] if cell]
    data = {"kind": "maps", "axes": names, "at": [c["at"] for c in order], "reels": [c["reels"] for c in order]}
    marked = " A mark in the corner: there are videos of it." if any(data["reels"]) else ""
    hint = f"{HINT.format('cell')}{marked} Hatched: no value."
    return Explored(data, grids, scale=_scale(shown.label, shown.low, shown.high, shown.colours), hint=hint)


def _cell(shown: Maps, row: dict[str, Any], reels: list[str]) -> dict[str, Any]:
    names, value = (shown.panel, shown.y, shown.x), row[VALUE]
    place = ", ".join(f"{name} {worded(row[name])}" for name in names if row[name] not in (None, ""))
    words = ", ".join(_numbers(row, names, shown.label)) or "no value"
    share = 0.0 if value is None else (value - shown.low) / ((shown.high - shown.low) or 1)
    paint = shown.colours[round(min(1.0, max(0.0, share)) * (len(shown.colours) - 1))]
    return {
        "at": tuple(row[name] for name in names), "words": brief(f"{place}: {words}", MOST_SAID), "reels": reels,
        "paint": None if value is None else paint, "ink": "#fff" if relative_luminance(paint) < EVEN else "#000",
        "text": "" if value is None else f"{value:z.2f}",
    }  # fmt: skip


def _grid(shown: Maps, panel: Any, cells: Mapping[tuple[Any, ...], dict[str, Any]]) -> dict[str, Any]:
    """A table, from above: its last row is the first place of y, as drawn."""
    across = list(dict.fromkeys(x for of, _, x in cells if of == panel))
    up = list(dict.fromkeys(y for of, y, _ in cells if of == panel))
    named = lambda axis, place: {str(plain(k)): v for k, v in shown.names.get(axis, {}).items()}.get(str(place), worded(place))
    lines = [{"name": named(shown.y, y), "cells": [cells.get((panel, y, x)) for x in across]} for y in reversed(up)]
    return {
        "name": "" if panel is None else str(panel), "label": f"{shown.label}, {shown.panel} {panel}", "lines": lines,
        "corner": shown.corner or f"{shown.y} / {shown.x}", "heads": [named(shown.x, x).replace("_", "_\u200b") for x in across],
        "written": len(across) <= WRITTEN,
    }  # fmt: skip


def _curves(shown: Curves) -> Explored | None:
    rows = [row for row in _rows(shown.points) if row[shown.along] is not None]
    names = {str(plain(place)): text for place, text in shown.names.items()}
    places = sorted({row[shown.along] for row in rows})
    told = [[_curve(row, shown.along) for row in rows if row[shown.along] == at] for at in places]
    data = {"kind": "curves", "along": shown.along, "at": places, "names": [names.get(str(at), worded(at)) for at in places]}
    return Explored(data, told=told, label=shown.label or shown.along) if len(places) > 1 else None


def _curve(row: dict[str, Any], along: str) -> tuple[str, str]:
    """Which curve, and its numbers at a place."""
    of = ", ".join(str(row[name]) for name in ("panel", "curve") if row.get(name))
    return of or "value", ", ".join(_numbers(row, ("panel", "curve", along), ""))


def _points(shown: Points, reels: Reels) -> Explored:
    """Of each column its different values, and the place of each point's."""
    about = {name: [plain(value) for value in shown.about[name]] for name in shown.about if name != REELS}
    told = [[None if value is None else f"{name} {worded(value)}" for value in values] for name, values in about.items()]
    data = {
        "kind": "points", "maps": list(shown.maps), "told": list(map(_coded, told)), "joined": shown.joined,
        "address": {name: _coded(about[name]) for name in shown.address},
        "reels": _coded(list(map(tuple, _seen(shown.about, reels)))),
    }  # fmt: skip
    if len(shown.legend) == len(shown.colours):
        legend = list(zip(shown.colours, shown.legend, strict=True))
        return Explored(data, plots=_plots(shown), legend=legend, label=shown.label, hint=HINT.format("point"))
    low, high = map(float, shown.legend)
    scale = _scale(shown.label, low, high, shown.colours)
    return Explored(data, plots=_plots(shown), scale=scale, hint=HINT.format("point"))


def _plots(shown: Points) -> list[dict[str, Any]]:
    """Each map scaled to its square; y goes up."""
    low, high = shown.places.min(1, keepdims=True), shown.places.max(1, keepdims=True)
    share = (shown.places - low) / np.where(high > low, high - low, 1)
    share[..., 1] = 1 - share[..., 1]
    places = np.round(EDGE + share * (SIDE - 2 * EDGE)).astype(int)
    paint = [NO_CLASS if k < 0 else shown.colours[k] for k in shown.paint]
    return [
        {"name": name, "dots": [(x, y, colour) for (x, y), colour in zip(of.tolist(), paint, strict=True)]}
        for name, of in zip(shown.maps, places, strict=True)
    ]


def _scale(label: str, low: float, high: float, colours: Sequence[str]) -> dict[str, Any]:
    return {"label": label, "low": worded(plain(low)), "high": worded(plain(high)), "colours": list(colours)}


def _numbers(row: Mapping[str, Any], address: Iterable[str], label: str) -> list[str]:
    """Label and value of each column but the address; low and high are the interval of the column before them, of which kind is
    said once, below the figure."""
    names = [name for name in row if name not in (*address, "low", "high", INTERVAL) and row[name] is not None]
    before = next((name for name, after in zip(row, list(row)[1:], strict=False) if after == "low"), None)
    ends = [row.get("low"), row.get("high")]
    interval = "" if None in ends else f" [{', '.join(map(worded, ends))}]"
    return [
        f"{label if name in (VALUE, 'mean') else name} {worded(row[name])}{interval if name == before else ''}".strip()
        for name in names
    ]


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    kept = table.drop(columns=REELS, errors="ignore")
    return [{name: plain(value) for name, value in row.items()} for row in kept.to_dict("records")]


def _seen(table: pd.DataFrame, reels: Reels) -> list[list[str]]:
    """Of each row the ids of its reels that the page has."""
    return [[reels[name] for name in names if name in reels] for names in table.get(REELS, [()] * len(table))]


def _coded(values: Sequence[Any]) -> dict[str, Any]:
    """The different values of a column in order, and the place of each row's."""
    places = {value: at for at, value in enumerate(dict.fromkeys(values))}
    return {"values": list(places), "at": [places[value] for value in values]}
