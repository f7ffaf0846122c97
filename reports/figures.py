"""Figures as SVG text, byte-identical for the same numbers. Knows tables, not models."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

STYLE = {"svg.hashsalt": "cos", "font.size": 8, "axes.titlesize": 9, "figure.dpi": 100, "font.family": "DejaVu Sans"}


def svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element without a document header or a date."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def heat_maps(
    maps: Sequence[tuple[str, pd.DataFrame]],
    sigmas: dict[int, float],
    label: str,
    limit: float | None = None,
    share: bool = False,
) -> str:
    """Layer x step maps side by side with one colour scale; sigma under each step.

    The scale is symmetric about 0 (effects), or runs from 0 to 1 (shares)."""
    values = np.concatenate([m.to_numpy(float).ravel() for _, m in maps])
    values = values[np.isfinite(values)]
    top = limit or max(0.05, float(np.abs(values).max())) if len(values) else 1.0
    columns = min(4, len(maps))
    rows = -(-len(maps) // columns)
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(3.1 * columns, 2.9 * rows), squeeze=False, layout="constrained")
        for axis in axes.flat[len(maps) :]:
            axis.axis("off")
        for place, (axis, (title, table)) in enumerate(zip(axes.flat, maps, strict=False)):
            bar = place % columns == columns - 1 or place == len(maps) - 1
            sns.heatmap(
                table.astype(float), ax=axis, vmin=0 if share else -top, vmax=1 if share else top,
                cmap="Reds" if share else "RdBu_r", cbar=bar, cbar_kws={"label": label} if bar else None,
            )  # fmt: skip
            axis.set_title(title)
            axis.set_xticks(np.arange(table.shape[1]) + 0.5)
            axis.set_xticklabels([f"{k}\n{sigmas[int(k)]:.2f}" for k in table.columns], fontsize=6, rotation=0)
            axis.set_xlabel("step, sigma")
            axis.set_ylabel("layer" if place % columns == 0 else "")
            axis.invert_yaxis()
    return svg(figure)


def profiles(curves: Sequence[tuple[str, pd.DataFrame]], expected: dict[str, list[float]], steps: list[int]) -> str:
    """Effect by step against sigma with 95 % bands; the trivial expectations dashed."""
    with matplotlib.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
        sigmas: list[float] = []
        for (name, table), colour in zip(curves, sns.color_palette("deep"), strict=False):
            axis.plot(table.step, table["mean"], marker="o", ms=3, label=f"{name} (n = {table.n.max()})", color=colour)
            axis.fill_between(table.step, table.low.astype(float), table.high.astype(float), alpha=0.15, color=colour, lw=0)
            sigmas = list(table.sigma)
        for (name, values), style in zip(expected.items(), ("--", ":"), strict=False):
            axis.plot(steps, values, style, color="0.35", lw=1, label=f"expected: {name}")
        axis.axhline(0, color="0.8", lw=0.6)
        axis.set_xticks(steps)
        axis.set_xticklabels([f"{k}\n{s:.2f}" for k, s in zip(steps, sigmas, strict=False)])
        axis.set_xlabel("step, sigma")
        axis.set_ylabel("effect")
        axis.legend(fontsize=7, frameon=False)
        sns.despine(figure)
    return svg(figure)
