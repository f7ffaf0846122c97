"""The account as one figure: which part of which block reads the answer, by which heads, into which tokens, and when."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from cos_interp.analyses.circuit import CLOSER
from cos_interp.reports.drawing import Drawing, Numbers
from cos_interp.reports.figures import subplots
from cos_interp.reports.style import PALETTE, style, svg

NAMES = {"cross": "attention to the prompt", "attn": "attention to the video", "mlp": "MLP"}


def flow(rows: pd.DataFrame, sigmas: list[float], prompts: tuple[str, str]) -> Drawing:
    """Four panels, in the order of the story; ``rows`` are those of the maps, ``prompts`` of one pair of them."""
    with matplotlib.rc_context(style()):
        figure, axes = subplots(4, 2, 4.6, 3.2)
        _parts(axes[0], rows[rows.table == "part"])
        _heads(axes[1], rows[rows.table == "head"])
        _tokens(axes[2], rows[rows.table == "flow"])
        _steps(axes[3], rows[rows.table == "from"], sigmas)
        count = rows[rows.table == "flow"].pair.nunique()
        figure.suptitle(f"Means over {count} pairs like “{prompts[0]}” and “{prompts[1]}”", fontsize=9)
    return Drawing(svg(figure), Numbers(_numbers(rows)))


def _numbers(rows: pd.DataFrame) -> pd.DataFrame:
    """What the panels show: means over pairs."""
    shown = rows[rows.table.isin(["part", "head", "flow", "from"])]
    place = [name for name in ("table", "part", "layer", "head", "group", "step") if name in shown]
    return shown.groupby(place, dropna=False, sort=False).effect.agg(["mean", "count"]).reset_index()


def _parts(axis: Axes, rows: pd.DataFrame) -> None:
    for part, colour in zip(NAMES, sns.color_palette(PALETTE), strict=False):
        if len(mine := rows[rows.part == part]):
            _line(axis, mine, "layer", NAMES[part], colour)
    axis.set(title="1. What writes it? All tokens, all steps", xlabel="layer", ylabel="effect")
    _dressed(axis)


def _heads(axis: Axes, rows: pd.DataFrame) -> None:
    axis.set(title="2. By which head? One at a time")
    if rows.empty:
        axis.text(0.5, 0.5, "no part with heads", ha="center", transform=axis.transAxes)
        return
    named = rows.assign(place=rows.part.astype(str) + " " + rows.layer.astype(int).astype(str))
    table = named.pivot_table(index="place", columns="head", values="effect")
    _map(axis, table.loc[list(dict.fromkeys(named.place))])
    axis.set(xlabel="head", ylabel="")


def _tokens(axis: Axes, rows: pd.DataFrame) -> None:
    table = rows.pivot_table(index="group", columns="layer", values="effect")
    _map(axis, table.loc[list(dict.fromkeys(rows.group))].rename(index=lambda name: name.replace("_", " ")))
    axis.set(title="3. In which tokens does it sit, block after block?", xlabel="residual stream after layer", ylabel="")


def _steps(axis: Axes, rows: pd.DataFrame, sigmas: list[float]) -> None:
    axis.set(title="4. When? Patched from a step on", xlabel="first step, sigma", ylabel="effect")
    places = list(dict.fromkeys(zip(rows.part, rows.layer, strict=True)))[:CLOSER]  # the rows have the strongest part first
    for (part, layer), colour in zip(places, sns.color_palette(PALETTE), strict=False):
        _line(axis, rows[(rows.part == part) & (rows.layer == layer)], "step", f"{part} {int(layer)}", colour)
    every = max(1, len(sigmas) // 8)
    shown = range(0, len(sigmas), every)
    axis.set_xticks(list(shown), [f"{k}\n{sigmas[k]:.2f}" for k in shown], fontsize=6)
    _dressed(axis)


def _line(axis: Axes, rows: pd.DataFrame, along: str, label: str, colour: tuple[float, float, float]) -> None:
    """The mean over pairs, and each pair as a point."""
    mean = rows.groupby(along).effect.mean()
    axis.plot(mean.index.astype(float), mean, marker="o", ms=3, lw=1.4, label=label, color=colour)
    axis.plot(rows[along].astype(float), rows.effect, ".", ms=2, color=colour, alpha=0.5)


def _dressed(axis: Axes) -> None:
    axis.axhline(0, color="0.8", lw=0.7, zorder=0)
    axis.axhline(1, color="0.8", lw=0.7, ls="--", zorder=0)
    if axis.lines and axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=6.5, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))  # never over a curve
    sns.despine(ax=axis)


def _map(axis: Axes, table: pd.DataFrame) -> None:
    marks = np.vectorize(lambda value: f"{value:z.2f}".replace("0.", "."))(table.to_numpy(float)) if table.size else None
    sns.heatmap(
        table.astype(float), ax=axis, cbar=False, vmin=-1, vmax=1, cmap="RdBu_r", annot=marks, fmt="", annot_kws={"size": 6},
        xticklabels=[str(int(c)) for c in table.columns],
    )  # fmt: skip
    axis.tick_params(labelsize=7, rotation=0)
