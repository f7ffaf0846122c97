"""Figures of probes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cos_interp.reports.style import drawn_on

BASELINES = ("x_t", "first frame", "position", "shuffled", "majority")


def grid_figure(scores: pd.DataFrame) -> Figure:
    """Left: score by hook name and step. Right: the best name of each step with its interval, against the baselines."""
    table = scores.pivot(index="name", columns="step", values="score")
    table = table.loc[list(dict.fromkeys(scores.sort_values("layer", kind="stable")["name"]))]
    sigmas = scores.drop_duplicates("step").set_index("step").sigma
    figure = drawn_on((12, 3.6))
    left, right = figure.subplots(1, 2)
    metric = "R2" if (scores.kind == "ridge").all() else "balanced accuracy"
    sns.heatmap(table, ax=left, cmap="viridis", cbar_kws={"label": metric}, xticklabels=False)
    left.invert_yaxis()
    left.set(title=f"{scores.target.iloc[0]} ({scores.family.iloc[0]})", xlabel="step, sigma", ylabel="")
    _step_axis(left, list(table.columns), sigmas, 0.5)
    best = scores.loc[scores.groupby("step").score.idxmax()].sort_values("step")
    right.plot(best.step, best.score, marker="o", ms=3, label="best layer")
    right.fill_between(best.step, best.low, best.high, alpha=0.15, lw=0)
    for name, colour in zip([b for b in BASELINES if b in best], sns.color_palette("deep")[1:], strict=False):
        right.plot(best.step, best[name], "--", lw=1, label=name, color=colour)
    right.set(title=f"n = {best.n_clips.iloc[0]} clips, {best.n_rows.iloc[0]} tokens", xlabel="step, sigma", ylabel=metric)
    _step_axis(right, list(best.step), sigmas, 0)
    right.legend(fontsize=7, frameon=False)
    sns.despine(ax=right)
    return figure


def _step_axis(axis: Axes, steps: list[int], sigmas: pd.Series, shift: float) -> None:
    shown = steps[:: max(1, len(steps) // 10)]
    places = [steps.index(s) + shift if shift else s for s in shown]
    axis.set_xticks(np.array(places, float))
    axis.set_xticklabels([f"{s}\n{sigmas[s]:.2f}" for s in shown], fontsize=7, rotation=0)
