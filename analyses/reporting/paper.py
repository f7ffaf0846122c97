"""What a paper needs of a run: every figure as SVG and PDF, its numbers as CSV, and a paragraph on methods."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cos_interp.analyses.driver.drawing import report_of
from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.loaded import opened
from cos_interp.analyses.reporting.methods import methods
from cos_interp.reports.style import paper

METHODS = "methods.md"


def files(folder: Path, known: Mapping[str, Entry]) -> dict[str, bytes]:
    """The files by name, drawn from what a finished run left; the same run gives the same bytes. RunError where there is none.

    ``known``: experiments by name.
    """
    facts, _, config = opened(folder, known)
    with paper():
        report = report_of(folder, known)
    made: dict[str, bytes] = {}
    for name, figure in report.figures.items():
        stem = Path(name).stem
        numbers = figure.table.to_csv(index=False, lineterminator="\n")
        made |= {f"{stem}.svg": figure.svg.encode(), f"{stem}.csv": numbers.encode()}
        made |= {f"{stem}.pdf": pdf} if (pdf := figure.picture.pdf) is not None else {}
    found = [Finding.of(data) for data in report.data["findings"]]
    return made | {METHODS: methods(config, facts, found, report.told).encode()}
