"""The page of a dossier: every claim, and every experiment with its answer and a figure. A file that can be sent alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from cos_interp.analyses.dossier import ExperimentFacts
from cos_interp.analyses.dossier.multiplicity import corrected
from cos_interp.analyses.dossier.text import markdown
from cos_interp.analyses.dossier.together import Told, label
from cos_interp.analyses.driver.answer import answer
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import VERDICT_STYLE, Finding, Number, Verdict
from cos_interp.analyses.driver.identity import begun_with
from cos_interp.analyses.driver.store import RunStore
from cos_interp.reports.html import drawing, render

LARGEST_FIGURE = 200_000  # bytes of one that goes into a text
Figures = Mapping[str, bytes]  # SVG by experiment, or file name


def concluded(result: AnalysisResult) -> AnalysisResult:
    """With the false discovery rate held over its claims, and a row for each."""
    units = corrected(result.units_of(ExperimentFacts))
    return replace(result, units=units, rows=_claims(units))


def shown_rows(result: AnalysisResult) -> pd.DataFrame:
    """The rows of its claims as a table holds them."""
    return result.rows.drop(columns=["number", "control", "twins"], errors="ignore")


def said_of(report: Report) -> dict[str, Any]:
    """What a dossier holds of an experiment's report: the fields of its :class:`ExperimentFacts`."""
    small = (figure for figure in report.figures if len(report.media[figure]) < LARGEST_FIGURE)
    found = tuple(map(Finding.of, report.data.get("findings", [])))
    return {"lines": tuple(report.lines), "findings": found, "figure": next(small, "")}


def figures(folder: Path, units: Mapping[str, ExperimentFacts]) -> Figures:
    """One figure of each experiment that has one small enough, from its own run."""
    shown = {name: unit.figure for name, unit in units.items() if unit.figure}
    return {name: RunStore(folder / name).read(f"media/{figure}") for name, figure in shown.items()}


def figures_of(dossiers: Sequence[Path]) -> Figures:
    """The figures in the pages of several dossiers, by file name: of each experiment that of the first one that has it."""
    found: dict[str, bytes] = {}
    for folder in reversed(dossiers):
        found |= {path.name: RunStore(folder).read(f"media/{path.name}") for path in sorted((folder / "media").glob("*.svg"))}
    return found


def files(report: Report, drawn: Figures) -> dict[str, bytes]:
    """What is written to the dossier's folder, by name."""
    texts = {"findings.md": report.data["markdown"].encode()}
    return report.files() | texts | {f"media/{name}.svg": figure for name, figure in drawn.items()}


def build(result: AnalysisResult, drawn: Figures, pages: Mapping[str, str] | None = None) -> Report:
    """The page, the same as Markdown, and a line for each claim. ``pages``: the content of every experiment's own page, where
    all are to be in one file."""
    units, facts = result.units_of(ExperimentFacts), result.facts
    claims = result.rows.to_dict("records")
    for claim in claims:
        claim["number"], claim["control"] = _shown(claim["number"]), _shown(claim["control"])
        claim["twins"] = [_shown(twin) for twin in claim["twins"]]
    count: Callable[[str], int] = lambda verdict: sum(c["verdict"] == verdict and c["primary"] for c in claims)
    summary = ", ".join(f"{count(v)} {v}" for v in get_args(Verdict))
    html = render(
        "dossier.html", title="Chain-of-Steps: the dossier", summary=summary, claims=claims, units=units, model=facts["model"],
        config=result.config, versions=facts["versions"], begun_with=begun_with(facts), command=facts["command"],
        verdicts=VERDICT_STYLE,
        answers={name: answer(unit.findings) for name, unit in units.items()}, pages=pages or {},
        figures={name: drawing(figure.decode()) for name, figure in drawn.items()},
    )  # fmt: skip
    lines = [f"{c['experiment']}: {_verdict(c)}: {c['claim']}: {c['number']}" for c in claims]
    lines += [f"{name}: could not run: {unit.error}" for name, unit in units.items() if unit.error]
    data = {"summary": summary, "claims": claims, "markdown": markdown([_told(result)])}
    return Report([summary, *lines], data, html)


def _claims(units: dict[str, ExperimentFacts]) -> pd.DataFrame:
    rows = []
    for name, unit in units.items():
        for finding in (made.data() for made in unit.findings):
            del finding["items"]
            numbers = {
                f"{key}_{part}": finding[key][part] for key in ("number", "control") for part in ("value", "low", "high", "n")
            }
            rows.append({"experiment": name, **finding, **numbers})
    return pd.DataFrame(rows)


def _shown(number: dict[str, Any]) -> str:
    return str(Number(**number))


def _told(result: AnalysisResult) -> Told:
    config, units = result.config, result.units_of(ExperimentFacts)
    return Told(label(result.facts["model"], config), (result.facts["command"],), config.confirm, units)


def _verdict(claim: Mapping[str, Any]) -> str:
    """The verdict on a primary claim, with what is lacking; a variant has none."""
    why = f" ({claim['why']})" if claim["why"] else ""
    return f"{claim['verdict']}{why}" if claim["primary"] else "variant"
