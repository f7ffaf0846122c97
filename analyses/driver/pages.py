"""The page of an experiment, from its findings, figures and tables. Knows results, not models."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Finding
from cos_interp.reports.html import data_uri, drawing, number, render
from cos_interp.tasks.video import encode_mp4

VERDICT_STYLE = {"reproduced": "ok", "refuted": "bad", "undecided": "maybe", "not testable": "maybe"}


@dataclass(frozen=True)
class Clip:
    """A video ``[pixel frame, height, width, 3]`` or a picture ``[height, width, 3]``, uint8, with a caption."""

    name: str
    text: str
    pixels: np.ndarray

    @property
    def still(self) -> bool:
        return self.pixels.ndim == 3

    @property
    def data(self) -> bytes:
        if not self.still:
            return encode_mp4(self.pixels)
        buffer = io.BytesIO()
        Image.fromarray(self.pixels).save(buffer, "png")
        return buffer.getvalue()


@dataclass(frozen=True)
class Section:
    """A heading with a figure (SVG text), its caption, clips and a table."""

    title: str
    figure: str = ""
    caption: str = ""
    table: pd.DataFrame | None = None
    clips: list[Clip] = field(default_factory=list)


def build(
    result: AnalysisResult, title: str, question: str, source: str, findings: list[Finding], sections: list[Section],
    notes: list[str] | None = None,
) -> Report:  # fmt: skip
    """The report of an experiment: page, lines for the terminal, data, media."""
    media = {f"{_file(s.title)}-{_file(c.name)}.{'png' if c.still else 'mp4'}": c.data for s in sections for c in s.clips}
    figures = {f"{_file(s.title)}.svg": s.figure.encode() for s in sections if s.figure}
    html = render(
        "experiment.html",
        title=title, question=question, source=source, findings=findings, notes=notes or [], verdicts=VERDICT_STYLE,
        sections=[_section(s) for s in sections], model=result.facts["model"], config=result.config,
        versions=result.facts["versions"], command=result.facts["command"],
    )  # fmt: skip
    lines = [f.line() for f in findings] + list(notes or [])
    return Report(lines, {"findings": [f.data() for f in findings], "notes": notes or []}, html, media | figures, tuple(figures))


def _section(section: Section) -> dict[str, Any]:
    clips = [
        {
            "name": c.name, "text": c.text, "kind": "image" if c.still else "video",
            "uri": data_uri(c.data, "image/png" if c.still else "video/mp4"),
        }
        for c in section.clips
    ]  # fmt: skip
    table = None
    if section.table is not None:
        rows = [[_cell(v) for v in row] for row in section.table.itertuples(index=False)]
        table = {"columns": list(section.table.columns), "rows": rows}
    figure = drawing(section.figure) if section.figure else ""
    return {"title": section.title, "figure": figure, "caption": section.caption, "clips": clips, "table": table}


def _cell(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return "–"
    return number(float(value)) if isinstance(value, (float, np.floating)) else str(value)


def _file(text: str) -> str:
    """A file name from free text: letters, digits and dashes only."""
    return "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in text.lower()).split())[:60] or "clip"


def strip(clips: np.ndarray, frames: list[int] | None = None, gap: int = 2) -> np.ndarray:
    """Clips ``[row, pixel frame, height, width, 3]`` as one picture: a row each, frames from left to right."""
    picked = clips if frames is None else clips[:, frames]
    count, length, height, width, _ = picked.shape
    out = np.full((count * (height + gap) - gap, length * (width + gap) - gap, 3), 255, np.uint8)
    for row in range(count):
        for frame in range(length):
            y, x = row * (height + gap), frame * (width + gap)
            out[y : y + height, x : x + width] = picked[row, frame]
    return out
