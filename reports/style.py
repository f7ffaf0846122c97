"""How figures look: on a page, or in a paper."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import matplotlib
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

PAGE: dict[Any, Any] = {
    "svg.hashsalt": "cos",
    "font.size": 8,
    "axes.titlesize": 9,
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",
    "text.parse_math": False,  # a name from data is text, with or without dollar signs
}
PALETTE = "colorblind"  # of Okabe & Ito's kind
LONGEST = 200  # characters of a text in a figure; the whole of it stands in the numbers behind
WIDEST, WIDEST_OF_A_PAGE = 7.0, 100.0  # inches of a figure: two columns of a paper; no bound on a page

_in_paper: ContextVar[bool] = ContextVar("in_paper", default=False)


@dataclass(frozen=True)
class Picture:
    """A figure as it was drawn: SVG text and, in a paper's style, the PDF."""

    svg: str
    pdf: bytes | None = None


def drawn_on(figsize: tuple[float, float]) -> Figure:
    """A figure of a size in inches to draw on, which is not pyplot's: no window, and a notebook's backend stays as it is."""
    figure = Figure(figsize=figsize, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def style() -> dict[Any, Any]:
    """matplotlib's settings, as they hold now."""
    return _paper() if _in_paper.get() else PAGE


def widest() -> float:
    """Inches that a figure may be wide."""
    return WIDEST if _in_paper.get() else WIDEST_OF_A_PAGE


@contextmanager
def paper() -> Iterator[None]:
    """Draw in the style of a paper for the length of a block: seaborn's, within the width of a page, text that can be edited in
    the PDF."""
    before = _in_paper.set(True)
    try:
        yield
    finally:
        _in_paper.reset(before)


def _paper() -> dict[Any, Any]:
    looks = sns.axes_style("ticks") | sns.plotting_context("paper", font_scale=0.85)
    own = {"svg.hashsalt": "cos", "figure.dpi": 300, "font.family": "DejaVu Sans", "pdf.fonttype": 42}  # 42: TrueType
    own["text.parse_math"] = PAGE["text.parse_math"]
    return looks | own


def picture(draw: Callable[[], Figure]) -> Picture:
    """What ``draw`` makes, in the style that holds now."""
    with matplotlib.rc_context(style()):
        figure = draw()
        _bounded(figure)
        return Picture(_svg(figure), _pdf(figure) if _in_paper.get() else None)


def _svg(figure: Figure) -> str:
    """An ``<svg>`` element without a document header or a date."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _bounded(figure: Figure) -> None:
    """Cuts texts that are too long to be read in a figure."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [label.get_text() for label in axis.get_ticklabels()]
            if any(len(label) > LONGEST for label in labels):  # which are written again when they are drawn
                axis.set_ticks(axis.get_ticklocs(), [brief(label, LONGEST) for label in labels])
    for text in figure.findobj(Text):
        if len(text.get_text()) > LONGEST:
            text.set_text(brief(text.get_text(), LONGEST))


def brief(text: str, most: int) -> str:
    """A text of at most so many characters.

    >>> brief("abcdef", 4), brief("abcd", 4)
    ('abc…', 'abcd')
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _pdf(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None}, bbox_inches="tight")
    return buffer.getvalue()
