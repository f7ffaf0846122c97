"""The page of an experiment, from its findings, figures, clips and tables. Knows results, not models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cos_interp.analyses.driver import pictures
from cos_interp.analyses.driver.answer import answer, deciding, in_words, split_question
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.caveats import caveats
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.failing import failing_note
from cos_interp.analyses.driver.findings import VERDICT_STYLE, Finding
from cos_interp.analyses.driver.identity import begun_with
from cos_interp.analyses.driver.layout import counterexamples, file_name, laid_out, media_name
from cos_interp.analyses.driver.parts import Clip, Link, Overlay, Reel, Section, Shown
from cos_interp.analyses.driver.processor import mixed_note
from cos_interp.analyses.driver.reading import reads_cells
from cos_interp.reports.html import render

__all__ = ["VERDICT_STYLE", "Clip", "Link", "Overlay", "Reel", "Section", "Shown", "build", "strip"]


def build(
    result: AnalysisResult, title: str, question: str, source: str, findings: list[Finding], sections: list[Section],
    notes: list[str] | None = None, named: Sequence[str] = (),
) -> Report:  # fmt: skip
    """The report of an experiment: page, lines for the terminal, data, media. ``named``: caveats beside those of what was run."""
    pictures.make(sections, result.workers)
    rate = result.facts["model"].get("frame_rate")
    media = {media_name(s, clip): clip.file(rate) for s in sections for clip in s.clips}
    media |= {media_name(s, reel): reel.data for s in sections for reel in s.reels}
    figures = {f"{file_name(s.title)}.svg": s.figure for s in sections if s.figure is not None}
    media |= {name: figure.svg.encode() for name, figure in figures.items()}
    asked, method = split_question(question)
    said, laid = answer(findings), laid_out(sections, rate, reads_cells(result.config))
    first, mixed = deciding(findings), mixed_note(result.facts.get("processors", {}))
    notes = [*(notes or []), *failing_note(result.rows), *mixed]
    html = render(
        "experiment.html",
        title=title, question=asked, method=method, source=source, findings=findings, notes=notes, verdicts=VERDICT_STYLE,
        answer=said, against=counterexamples(said.these, laid["reels"]) if said else [],
        unanswered=" ".join(["This run has no verdict.", *notes[:1]]),
        others=[f for f in findings if f.primary and f is not first], in_words=in_words,
        **laid, caveats=caveats(result, findings, named), model=result.facts["model"], config=result.config,
        versions=result.facts["versions"], begun_with=begun_with(result.facts), command=result.facts["command"],
    )  # fmt: skip
    lines = [f.line() for f in findings] + list(notes)
    told = {"question": asked, "method": method, "source": source}
    return Report(lines, {"findings": [f.data() for f in findings], "notes": notes}, html, media, figures, told)


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
