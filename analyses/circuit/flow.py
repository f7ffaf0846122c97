"""The account as one figure: what writes the answer, the words that it reads, by which heads, into which tokens, when, and what
is read late."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from textwrap import shorten
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cos_interp.analyses.circuit import CLOSER
from cos_interp.analyses.circuit.checks import ALONE, READS
from cos_interp.reports.drawing import Drawing, Numbers
from cos_interp.reports.figures import subplots, written_map
from cos_interp.reports.style import PALETTE

NAMES = {"cross": "attention to the prompt", "attn": "attention to the video", "mlp": "MLP"}
MOST_WORDS = 12
OUTCOMES = {"donor": "the other run's", "target": "its own", "other": "neither", "undecided": "not readable"}


@dataclass(frozen=True)
class Panel:
    """``says``: what is drawn, for the caption; ``rows``: of which."""

    title: str
    says: str
    rows: pd.DataFrame
    draw: Callable[[Axes, pd.DataFrame], None]


def flow(rows: pd.DataFrame, sigmas: list[float], prompts: tuple[str, str]) -> tuple[Drawing, str]:
    """The figure and what it shows. ``rows``: of maps and tests; ``prompts``: of the first pair of the maps, what receives first.

    A panel of what an older run did not measure, or the model does not have, is left out.
    """
    shown = [panel for panel in panels(rows, sigmas, prompts) if len(panel.rows)]
    count = rows[rows.table == "flow"].pair.nunique()

    def draw() -> Figure:
        figure, axes = subplots(len(shown), 2, 4.6, 3.2)
        for number, (axis, panel) in enumerate(zip(axes, shown, strict=True), 1):
            panel.draw(axis, panel.rows)
            axis.set(title=f"{number}. {panel.title}")
        figure.suptitle(f"Pairs like “{_short(prompts[0])}” and “{_short(prompts[1])}”", fontsize=9)
        return figure

    says = " ".join(f"{number}: {panel.says}." for number, panel in enumerate(shown, 1))
    return Drawing(draw, Numbers(_numbers(shown))), f"Means over the {count} pairs of the search (points: pairs). {says}"


def panels(rows: pd.DataFrame, sigmas: list[float], prompts: tuple[str, str]) -> Iterator[Panel]:
    """In the order of the story."""
    of = lambda table: rows[rows.table == table]
    yield Panel(
        "What writes it? All tokens, all steps",
        "what one part of one block writes, at all tokens in all steps",
        of("part"),
        _parts,
    )
    words = _one_prompt(of("word"))
    yield Panel(
        "Which words does it read?",
        "how the heads of the circuit's attention to the text spread over it at the tokens of the circuit, in the run that gives "
        f"of the first pair (at most {MOST_WORDS} words)",
        words, _words,
    )  # fmt: skip
    yield Panel(
        "By which head? One at a time", "the strongest parts of those that have heads, a head at a time", of("head"), _heads
    )
    yield Panel(
        "In which tokens does it sit, block after block?",
        "the residual stream by token group: from left to right the answer moves from where it is read to where it is drawn",
        of("flow"), _tokens,
    )  # fmt: skip
    yield Panel(
        "When? Patched from a step on", "the strongest parts patched from a step on", of("from"), partial(_steps, sigmas=sigmas)
    )
    yield Panel(
        "Early and late: whose answer does the video give?",
        "on the unseen pairs, whose answer the whole video gives, strictly, when what reads for the circuit is patched at all "
        "tokens in the blocks up to the circuit's last (early), in those after (late), in all",
        _reads(rows), _late,
    )  # fmt: skip


def _short(prompt: str) -> str:
    return shorten(prompt, 50, placeholder=" …")


def _one_prompt(words: pd.DataFrame) -> pd.DataFrame:
    """Rows of the first pair's prompt: its most read words, in their order."""
    if words.empty:
        return words
    mine = words[words.pair == words.pair.min()]
    most = mine.groupby("number").weight.max().nlargest(MOST_WORDS).index
    return mine[mine.number.isin(most)].sort_values("number", kind="stable")


def _numbers(shown: list[Panel]) -> pd.DataFrame:
    """What the panels show: means over pairs."""
    names = ("table", "part", "layer", "head", "group", "word", "step", "way", "outcome")
    rows = pd.concat([panel.rows for panel in shown])
    place = [name for name in names if name in rows and rows[name].notna().any()]
    value = rows.effect if "weight" not in rows else rows.effect.fillna(rows.weight)
    return rows.assign(value=value).groupby(place, dropna=False, sort=False).value.agg(["mean", "count"]).reset_index()


def _parts(axis: Axes, rows: pd.DataFrame) -> None:
    for part, colour in zip(NAMES, sns.color_palette(PALETTE), strict=False):
        if len(mine := rows[rows.part == part]):
            _line(axis, mine, "layer", NAMES[part], colour)
    axis.set(xlabel="layer", ylabel="effect")
    _dressed(axis)


def _words(axis: Axes, rows: pd.DataFrame) -> None:
    """Heads of each component by the words in their order."""
    named = rows.assign(
        place=_places(rows) + rows.group.str.replace("_", " ").map(" {},".format) + rows["head"].map(" head {:.0f}".format)
    )
    table = named.pivot_table(index="place", columns="number", values="weight")
    texts = named.drop_duplicates("number").set_index("number").word
    _map(axis, table.loc[list(dict.fromkeys(named.place))], texts[table.columns].tolist(), vmin=0, vmax=None, cmap="Blues")
    axis.tick_params("x", rotation=45)
    axis.set(xlabel="", ylabel="")


def _heads(axis: Axes, rows: pd.DataFrame) -> None:
    named = rows.assign(place=_places(rows))
    table = named.pivot_table(index="place", columns="head", values="effect")
    _map(axis, table.loc[list(dict.fromkeys(named.place))])
    axis.set(xlabel="head", ylabel="")


def _tokens(axis: Axes, rows: pd.DataFrame) -> None:
    table = rows.pivot_table(index="group", columns="layer", values="effect")
    _map(axis, table.loc[list(dict.fromkeys(rows.group))].rename(index=lambda name: name.replace("_", " ")))
    axis.set(xlabel="residual stream after layer", ylabel="")


def _steps(axis: Axes, rows: pd.DataFrame, sigmas: list[float]) -> None:
    axis.set(xlabel="first step, sigma", ylabel="effect")
    places = list(dict.fromkeys(zip(rows.part, rows.layer, strict=True)))[:CLOSER]  # the rows have the strongest part first
    for (part, layer), colour in zip(places, sns.color_palette(PALETTE), strict=False):
        _line(axis, rows[(rows.part == part) & (rows.layer == layer)], "step", f"{part} {int(layer)}", colour)
    every = max(1, len(sigmas) // 8)
    shown = range(0, len(sigmas), every)
    axis.set_xticks(list(shown), [f"{k}\n{sigmas[k]:.2f}" for k in shown], fontsize=6)
    _dressed(axis)


def _reads(rows: pd.DataFrame) -> pd.DataFrame:
    """The tests of what is read early and late."""
    if "way" not in rows or not rows.way.isin(READS).any():
        return rows.iloc[:0]
    return rows[rows.way.isin([ALONE, *READS])]


def _late(axis: Axes, rows: pd.DataFrame) -> None:
    """Whose answer the videos give, as shares of the pairs; of own pairs that nobody reads, the mean effect."""
    ways, pairs = [ALONE, *READS], rows.pair.nunique()
    if "outcome" in rows and rows.outcome.notna().all():
        left = np.zeros(len(ways))
        for (who, said), colour in zip(OUTCOMES.items(), sns.color_palette(PALETTE), strict=False):
            share = (rows.outcome == who).groupby(rows.way).mean()[ways].to_numpy(float)
            axis.barh(ways, share, left=left, label=said, color=colour)
            left += share
        axis.set(xlabel=f"share of {pairs} unseen pairs")
    else:
        axis.barh(ways, rows.groupby("way").effect.mean()[ways], label="effect", color="0.6")
        axis.set(xlabel=f"mean effect on {pairs} unseen pairs")
    axis.invert_yaxis()
    _beside(axis)


def _places(rows: pd.DataFrame) -> pd.Series:
    return rows.part.astype(str) + " " + rows.layer.astype(int).astype(str)


def _line(axis: Axes, rows: pd.DataFrame, along: str, label: str, colour: tuple[float, float, float]) -> None:
    """The mean over pairs, and each pair as a point."""
    mean = rows.groupby(along).effect.mean()
    axis.plot(mean.index.astype(float), mean, marker="o", ms=3, lw=1.4, label=label, color=colour)
    axis.plot(rows[along].astype(float), rows.effect, ".", ms=2, color=colour, alpha=0.5)


def _dressed(axis: Axes) -> None:
    axis.axhline(0, color="0.8", lw=0.7, zorder=0)
    axis.axhline(1, color="0.8", lw=0.7, ls="--", zorder=0)
    _beside(axis)


def _beside(axis: Axes) -> None:
    """The legend, never over a curve."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=6.5, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    sns.despine(ax=axis)


def _map(axis: Axes, table: pd.DataFrame, columns: list[str] | None = None, **scale: Any) -> None:
    """``columns``: how they are called, by default by their numbers; ``scale``: by default that of effects."""
    scale = {"cbar": False, "vmin": -1, "vmax": 1, "cmap": "RdBu_r"} | scale
    marks = np.vectorize(lambda value: f"{value:z.2f}".replace("0.", "."))(table.to_numpy(float)) if table.size else None
    named = [str(int(c)) for c in table.columns] if columns is None else columns
    written_map(axis, table.astype(float), marks, annot_kws={"size": 6}, xticklabels=named, **scale)
    axis.tick_params(labelsize=7, rotation=0)
