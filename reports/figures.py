"""Figures as SVG text, byte-identical for the same numbers. Knows tables, not models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from seaborn.utils import relative_luminance

from cos_interp.reports.drawing import INTERVAL, STOPS, Curves, Drawing, Maps, Numbers, Points
from cos_interp.reports.style import PALETTE, drawn_on, widest


def subplots(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` axes of a size in inches, filled row by row, no wider than it may be; call it within the style."""
    width = min(width, widest())
    columns = int(min(columns, count, max(1, widest() // width)))
    rows = -(-count // columns)
    figure = drawn_on((width * columns, height * rows))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def _is_left(axis: Axes) -> bool:
    """Whether an axis of a grid stands at its left side."""
    spec = axis.get_subplotspec()
    return spec is not None and spec.is_first_col()


def colours(name: str) -> list[str]:
    """Evenly spaced colours of a matplotlib map, as the page's script needs them."""
    return [matplotlib.colors.to_hex(colour) for colour in matplotlib.colormaps[name](np.linspace(0, 1, STOPS))]


INK, CHALK = "#272727", "#fefefe"  # on painted cells; a dark page turns pure white and seaborn's #262626, which stand on paper
EVEN = 0.22  # luminance at which both have the same contrast


def written_map(axis: Axes, table: pd.DataFrame, marks: np.ndarray | None, **how: Any) -> None:
    """A heat map with a text in each cell, light or dark by what it stands on."""
    sns.heatmap(table, ax=axis, annot=marks, fmt="", **how)
    for text in axis.texts:
        column, row = (int(place) for place in text.get_position())
        below = axis.collections[0].to_rgba(table.iat[row, column])
        text.set_color(INK if relative_luminance(below) > EVEN else CHALK)


def heat_maps(
    maps: Sequence[tuple[str, pd.DataFrame]],
    sigmas: dict[int, float],
    label: str,
    limit: float | None = None,
    share: bool = False,
    panel: str = "map",
) -> Drawing:
    """Layer x step maps side by side with one colour scale; sigma under each step.

    The scale is symmetric about 0 (effects), or runs from 0 to 1 (shares)."""
    values = np.concatenate([m.to_numpy(float).ravel() for _, m in maps])
    values = values[np.isfinite(values)]
    top = limit or max(0.05, float(np.abs(values).max())) if len(values) else 1.0
    cmap = "Reds" if share else "RdBu_r"
    scale = {"vmin": 0 if share else -top, "vmax": 1 if share else top, "cmap": cmap}
    ticks = {k: f"{k}\n{sigma:.2f}" for k, sigma in sigmas.items()}

    def draw() -> Figure:
        figure, axes = subplots(len(maps), 4, 3.1, 2.9)
        for axis, (title, table) in zip(axes, maps, strict=True):
            sns.heatmap(table.astype(float), ax=axis, cbar=False, **scale)
            axis.set_title(title)
            axis.set_xticks(np.arange(table.shape[1]) + 0.5)
            axis.set_xticklabels([ticks[int(k)] for k in table.columns], fontsize=6, rotation=0)
            axis.set_xlabel("step, sigma")
            axis.set_ylabel("layer" if _is_left(axis) else "")
            axis.invert_yaxis()
        figure.colorbar(axes[0].collections[0], ax=axes, label=label, aspect=30)
        return figure

    ends = {"low": scale["vmin"], "high": scale["vmax"], "colours": colours(cmap)}
    said = {"names": {"step": ticks}, "corner": "layer / step, sigma"}
    return Drawing(draw, Maps.of(maps, "step", "layer", panel, label=label, **ends, **said))


def profiles(curves: Sequence[tuple[str, pd.DataFrame]], expected: dict[str, list[float]], steps: list[int]) -> Drawing:
    """Effect by step against sigma with 95 % bands; the trivial expectations dashed."""

    def draw() -> Figure:
        figure = drawn_on((6.4, 3.2))
        axis = figure.subplots()
        sigmas: list[float] = []
        for (name, table), colour in zip(curves, sns.color_palette(PALETTE), strict=False):
            axis.plot(table.step, table["mean"], marker="o", ms=3, label=f"{name} (n = {table.n.max()})", color=colour)
            axis.fill_between(table.step, table.low.astype(float), table.high.astype(float), alpha=0.15, color=colour, lw=0)
            sigmas = list(table.sigma)
        for (name, values), line in zip(expected.items(), ("--", ":"), strict=False):
            axis.plot(steps, values, line, color="0.35", lw=1, label=f"expected: {name}")
        axis.axhline(0, color="0.8", lw=0.6)
        axis.set_xticks(steps)
        axis.set_xticklabels([f"{k}\n{s:.2f}" for k, s in zip(steps, sigmas, strict=False)])
        axis.set_xlabel("step, sigma")
        axis.set_ylabel("effect")
        axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        sns.despine(figure)
        return figure

    made = [table.assign(curve=name) for name, table in curves]
    made += [pd.DataFrame({"step": steps, "mean": values, "curve": f"expected: {name}"}) for name, values in expected.items()]
    points = pd.concat(made).assign(panel="")
    known = [name for name in ("panel", "curve", "step", "sigma", "mean", "low", "high", "n", INTERVAL) if name in points]
    return Drawing(draw, Curves(points[known], "step"))


@dataclass(frozen=True)
class Curve:
    """One line of a figure. ``table`` has ``mean`` and, where there is an interval, ``low``, ``high`` and its kind, ``interval``,
    by its first column."""

    name: str
    table: pd.DataFrame
    style: str = "-"


@dataclass(frozen=True)
class Panel:
    """One pair of axes: curves over ``along`` (a column name), with labels."""

    title: str
    curves: Sequence[Curve]
    along: str
    xlabel: str
    ylabel: str
    ticks: Mapping[int, str] | Mapping[float, str] | None = None
    bounds: tuple[float, float] | None = None


def step_ticks(sigmas: Sequence[float], every: int = 1) -> dict[int, str]:
    """Tick labels of a step axis: index and, below, sigma. The last step always has one, and none so near that it would touch."""
    last = len(sigmas) - 1
    return {k: f"{k}\n{s:.2f}" for k, s in enumerate(sigmas) if k == last or (k % every == 0 and last - k >= every)}


def panels(made: Sequence[Panel], columns: int = 2) -> Drawing:
    """Curves with 95 % bands, in one figure."""

    def draw() -> Figure:
        figure, axes = subplots(len(made), columns, 5.4, 3.0)
        for axis, panel in zip(axes, made, strict=True):
            _draw(axis, panel)
        sns.despine(figure)
        return figure

    shown = _shown(made)
    return Drawing(draw, replace(shown, cut=any(map(_is_cut, made))) if isinstance(shown, Curves) else shown)


WITHIN = 2  # times the range of the means that a picture shows of the bands above and below them


def limits(panel: Panel) -> tuple[float, float]:
    """From where to where a picture goes up: its bounds, else all that is drawn, but of a band no more than some of the curves'
    own range, so that one wide interval does not flatten them. Numbers that are not finite are nowhere."""
    if panel.bounds:
        return panel.bounds
    finite = lambda name: [v for c in panel.curves if name in c.table for v in c.table[name].astype(float) if np.isfinite(v)]
    means = finite("mean")
    if not means:
        return 0.0, 1.0
    ends = [*means, *finite("low"), *finite("high")]
    room = WITHIN * (max(means) - min(means)) or math.inf
    low, high = max(min(ends), min(means) - room), min(max(ends), max(means) + room)
    margin = 0.05 * (high - low) or 0.05
    return low - margin, high + margin


def _shown(made: Sequence[Panel]) -> Curves | Numbers:
    """The points of all curves; panels along different things have no common axis and are numbers only."""
    known = ["mean", "low", "high", "n", INTERVAL]
    tables = [
        c.table[[p.along, *(k for k in known if k in c.table)]].assign(panel=p.title, curve=c.name)
        for p in made for c in p.curves
    ]  # fmt: skip
    points = pd.concat(tables) if tables else pd.DataFrame(columns=["panel", "curve"])
    along = list(dict.fromkeys(p.along for p in made))
    points = points[["panel", "curve", *along, *(k for k in known if k in points)]]
    if len(along) != 1:
        return Numbers(points)
    ticks = {str(place): text for place, text in (made[0].ticks or {}).items()}
    named = {place: text for place, text in ticks.items() if text.split("\n")[0] not in (place, "")}  # places that stand for it
    said = made[0].xlabel if named or along[0] not in made[0].xlabel else ""  # a reader knows the axis by what stands at it
    return Curves(points, along[0], said, named)


def _beyond(table: pd.DataFrame, bottom: float, top: float) -> list[tuple[float, pd.Series, str]]:
    """Where a curve or its band goes on outside of the picture: each edge, whether it does there at each point, and the
    triangle that says so."""
    ends = table[[end for end in ("mean", "low", "high") if end in table]].astype(float)
    return [(top, ends.max(axis=1) > top, "^"), (bottom, ends.min(axis=1) < bottom, "v")]


def _is_cut(panel: Panel) -> bool:
    """Whether some curve or band goes on outside of the picture."""
    return any(there.any() for curve in panel.curves for _, there, _ in _beyond(curve.table, *limits(panel)))


def _draw(axis: Axes, panel: Panel) -> None:
    palette = apart(len(panel.curves))
    bottom, top = limits(panel)
    axis.set_ylim(bottom, top)
    for place, (curve, colour) in enumerate(zip(panel.curves, palette, strict=False)):
        table = curve.table
        under = (len(panel.curves) - 1 - place) / max(1, len(panel.curves) - 1)  # wider below: where two coincide both show
        size, width = 2.5 + 2.5 * under, 1.2 + 1.6 * under
        line, at = curve.style, table[panel.along]
        dots = {"marker": "o", "ms": size} if line.strip("-.:") == "" else {"ms": 5}  # a style that is a mark has its own
        axis.plot(at, table["mean"], line, **dots, lw=width, label=curve.name, color=colour)
        if "low" in table:
            low, high = table.low.astype(float), table.high.astype(float)
            axis.fill_between(at.astype(float), low.clip(bottom, top), high.clip(bottom, top), alpha=0.13, color=colour, lw=0)
        for edge, there, mark in _beyond(table, bottom, top):
            if there.any():
                (marks,) = axis.plot(at[there], [edge] * int(there.sum()), mark, ms=4, color=colour, clip_on=False)
                marks.set_in_layout(False)
    axis.set_title(panel.title)
    axis.set_xlabel(panel.xlabel)
    axis.set_ylabel(panel.ylabel)
    if panel.ticks:
        axis.set_xticks(list(panel.ticks))
        axis.set_xticklabels(list(panel.ticks.values()), fontsize=6)
    if len(panel.curves) > 1 or panel.curves[0].name:
        axis.legend(fontsize=6.5, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))  # never over a curve


def thinned(labels: Sequence[str], most: int = 14) -> list[str]:
    """Labels of which so many stay that they do not run into each other; the last one does, and its neighbour does not.

    >>> thinned(["0", "1", "2", "3", "4", "end"], most=4)
    ['0', '', '2', '', '', 'end']
    """
    every, last = -(-len(labels) // most), len(labels) - 1
    return [label if k == last or (k % every == 0 and k + every <= last) else "" for k, label in enumerate(labels)]


def matrix_maps(
    maps: Sequence[tuple[str, pd.DataFrame]], xlabel: str, ylabel: str, label: str,
    bounds: tuple[float, float] | None = None, diverging: bool = False, columns: int = 3, panel: str = "map",
    xticks: Mapping[Any, str] | None = None, yticks: Mapping[Any, str] | None = None,
) -> Drawing:  # fmt: skip
    """Tables as coloured maps with one scale; row labels from the index, column labels from the columns, or what ``yticks`` and
    ``xticks`` have for them. An axis is addressed by its label up to a comma, a place by the index or column itself."""
    values = np.concatenate([m.to_numpy(float).ravel() for _, m in maps])
    values = values[np.isfinite(values)]
    low, high = bounds or (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if diverging and not bounds:
        high = max(abs(low), abs(high), 1e-9)
        low = -high
    cmap = "RdBu_r" if diverging else "viridis"
    scale = {"vmin": low, "vmax": high, "cmap": cmap}

    def draw() -> Figure:
        figure, axes = subplots(len(maps), columns, 3.9, 3.1)
        for axis, (title, table) in zip(axes, maps, strict=True):
            across = thinned([(xticks or {}).get(column, str(column)) for column in table.columns])
            up = [(yticks or {}).get(row, str(row)) for row in table.index]
            sns.heatmap(table.astype(float), ax=axis, cbar=False, xticklabels=across, yticklabels=up, **scale)
            axis.set_title(title)
            axis.set_xlabel(xlabel)
            axis.set_ylabel(ylabel if _is_left(axis) else "")
            axis.tick_params(labelsize=6, rotation=0)
            axis.invert_yaxis()
        figure.colorbar(axes[0].collections[0], ax=axes, label=label, aspect=30)
        return figure

    x, y = xlabel.split(",")[0] or "column", ylabel.split(",")[0] or "row"
    ends = {"low": low, "high": high, "colours": colours(cmap)}
    said = {"names": {axis: ticks for axis, ticks in ((x, xticks), (y, yticks)) if ticks}, "corner": f"{ylabel} / {xlabel}"}
    return Drawing(draw, Maps.of(maps, x, y, panel, label=label, **ends, **said))


def bars(groups: pd.DataFrame, ylabel: str, reference: float | None = None) -> Drawing:
    """Means with 95 % whiskers; ``groups`` has the columns ``name, mean, low, high``."""

    def draw() -> Figure:
        figure = drawn_on((max(4.0, 0.55 * len(groups) + 1.5), 3.2))
        axis = figure.subplots()
        mean = groups["mean"].astype(float)
        low, high = (groups[end].astype(float).where(lambda value: np.isfinite(value)).fillna(mean) for end in ("low", "high"))
        axis.bar(range(len(groups)), mean, color=sns.color_palette(PALETTE)[0], alpha=0.75)
        axis.errorbar(range(len(groups)), mean, [mean - low, high - mean], fmt="none", ecolor="0.25", capsize=2, lw=1)
        axis.set_xticks(range(len(groups)))
        axis.set_xticklabels(groups.name, rotation=35, ha="right", fontsize=7)
        axis.set_ylabel(ylabel)
        if reference is not None:
            axis.axhline(reference, color="0.4", lw=0.8, ls="--")
        sns.despine(figure)
        return figure

    return Drawing(draw, Numbers(groups))


def scatters(
    made: Sequence[tuple[str, pd.DataFrame]], colour: str, label: str, about: pd.DataFrame, address: Sequence[str],
    categorical: bool = True, columns: int = 3, joined: bool = False,
) -> Drawing:  # fmt: skip
    """The same points ``x, y`` in several maps, a table each, coloured by a column of ``about``, which has a row a point (see
    :class:`~cos_interp.reports.drawing.Points`)."""
    values = about[colour]
    order = list(dict.fromkeys(values.dropna())) if categorical else None
    palette = "viridis" if order is None else apart(len(order))

    def draw() -> Figure:
        figure, axes = subplots(len(made), columns, 3.7, 3.2)
        for place, (axis, (title, table)) in enumerate(zip(axes, made, strict=True)):
            drawn = {"hue": values.to_numpy(), "hue_order": order, "palette": palette}
            sns.scatterplot(
                x=table.x.to_numpy(), y=table.y.to_numpy(), **drawn, s=9, lw=0, ax=axis, legend=place == 0, rasterized=True
            )
            axis.set(title=title, xlabel="", ylabel="", xticks=[], yticks=[])
            if axis.legend_ is not None:
                named = axis.get_legend_handles_labels()
                axis.legend_.remove()
                figure.legend(*named, title=label, fontsize=6, title_fontsize=6, frameon=False, loc="outside right upper")
        return figure

    places = np.stack([table[["x", "y"]].to_numpy(float) for _, table in made])
    painted = _painted_by_name(values, order) if order is not None else _painted_by_size(values)
    return Drawing(draw, Points([title for title, _ in made], places, about, address, label, *painted, joined))


def apart(count: int) -> list[tuple[float, float, float]]:
    """So many colours of which no two are alike; up to ten, those that the colour-blind tell apart."""
    return list(sns.color_palette(PALETTE if count <= 10 else "husl", count))


def _painted_by_name(values: pd.Series, order: Sequence[Any]) -> tuple[list[int], list[str], list[str]]:
    """The colour of each point, the colours, their names."""
    palette = [matplotlib.colors.to_hex(c) for c in apart(len(order))]
    return [order.index(v) if v == v and v is not None else -1 for v in values], palette, [str(v) for v in order]


def _painted_by_size(values: pd.Series) -> tuple[list[int], list[str], list[str]]:
    """The same along a scale, whose ends are named."""
    numbers = values.to_numpy(float)
    low, high = float(np.nanmin(numbers)), float(np.nanmax(numbers))
    share = np.nan_to_num((numbers - low) / (high - low or 1), nan=-1)
    return [round(s * (STOPS - 1)) if s >= 0 else -1 for s in share], colours("viridis"), [f"{low:.4g}", f"{high:.4g}"]
