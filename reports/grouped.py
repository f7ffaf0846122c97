"""Means with whiskers for several series at named places, side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cos_interp.reports.drawing import Drawing, Numbers
from cos_interp.reports.figures import subplots
from cos_interp.reports.style import PALETTE

LINE = 90  # letters of names that stand beside each other below a panel


def grouped_points(made: list[tuple[str, pd.DataFrame]], reference: str | None = None, columns: int = 1) -> Drawing:
    """One panel a table (columns ``place, series, mean, low, high``), named by its axis label.

    ``reference``: a series with one row, drawn as a dashed line across the panel.
    """

    def draw() -> Figure:
        figure, axes = subplots(len(made), columns, 8.6, 2.8)
        for axis, (label, table) in zip(axes, made, strict=True):
            _draw(axis, table, label, reference)
        sns.despine(figure)
        return figure

    return Drawing(draw, Numbers(pd.concat([table.assign(of=label) for label, table in made])))


def _draw(axis: Axes, table: pd.DataFrame, label: str, reference: str | None) -> None:
    places = list(dict.fromkeys(table[table.series != reference].place))
    series = [name for name in dict.fromkeys(table.series) if name != reference]
    shift = np.linspace(-0.28, 0.28, len(series)) if len(series) > 1 else [0.0]
    for name, offset, colour in zip(series, shift, sns.color_palette(PALETTE), strict=False):
        own = table[table.series == name].set_index("place").reindex(places)
        mean, low, high = (own[c].to_numpy(float) for c in ("mean", "low", "high"))
        reach = np.nan_to_num(np.abs(np.stack([mean - low, high - mean])))
        axis.errorbar(np.arange(len(places)) + offset, mean, reach, fmt="o", ms=4, capsize=2, lw=1.1, color=colour, label=name)
    if reference is not None and (table.series == reference).any():
        axis.axhline(float(table[table.series == reference]["mean"].iloc[0]), color="0.4", lw=0.9, ls="--", label=reference)
    for edge in range(1, len(places)):
        axis.axvline(edge - 0.5, color="0.92", lw=0.8, zorder=0)
    axis.set_xticks(range(len(places)))
    long = sum(map(len, map(str, places))) > LINE
    axis.set_xticklabels(places, fontsize=7, rotation=35 if long else 0, ha="right" if long else "center")
    axis.set_ylabel(label)
    axis.legend(fontsize=6.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
