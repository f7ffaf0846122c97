"""Where does a plan come from? The account that several runs give together, as an article: a chapter for each part of it, with
the figure and the components of one run and the numbers of all.

Nothing in it is said beforehand: every sentence is that of a run, and where runs differ the chapter says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cos_interp.analyses.driver.answer import answer, in_words
from cos_interp.analyses.driver.drawing import report_of
from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.identity import shown_command, shown_name
from cos_interp.analyses.driver.loaded import LoadedRun
from cos_interp.analyses.driver.markdown import row
from cos_interp.analyses.reporting import formation

CHAPTERS = {
    "posterior": "What the model believes on the way",
    "seed-choice": "What picks the plan",
    "circuit": "Which parts read and carry it",
    "steering": "One vector, without a donor",
}
Formed = Mapping[str, Sequence[formation.Point]]  # by chapter
FOUND = ("The circuit:", "The place:")  # how a line of a report begins that says what was found
PREFACE = (
    "How a video diffusion transformer comes to its answer, from the noise to the video, as the runs below found it. Effects are "
    "of the final latent: 0, nothing moved; 1, the other run's. Intervals are 95 %, over items or pairs; unseen ones lie outside "
    "cos-500, and no search has seen them (where no seed is named they were at hand when some rules were changed). A control is "
    "subtracted on the same items; twins are models of random weights."
)


@dataclass(frozen=True)
class Chapter:
    """The runs of one experiment, and what each reports. Its figure is of the first."""

    name: str
    runs: Sequence[LoadedRun]
    reports: Sequence[Report]

    @property
    def figure(self) -> tuple[str, str] | None:
        """File name and SVG text of its first figure."""
        found = next(iter(self.reports[0].figures.items()), None)
        return None if found is None else (f"{self.name}.svg", found[1].svg)


def folders(given: Sequence[Path]) -> Iterator[Path]:
    """The run folders of the chapters among those given; of a dossier, those inside."""
    for folder in given:
        inside = [folder / name for name in CHAPTERS if (folder / name / "run.json").is_file()]
        yield from inside or [folder]


def chapters(runs: Sequence[LoadedRun], known: Mapping[str, Entry]) -> list[Chapter]:
    """Runs by chapter, in the order of the story. RunError for a run of something else, and for none."""
    for run in runs:
        if run.name not in CHAPTERS:
            raise RunError(f"{run.folder} is a run of {run.name}: the account has {', '.join(CHAPTERS)}, or dossiers of them")
    if not runs:
        raise RunError("no run was given: give run folders of " + ", ".join(CHAPTERS))
    of = {name: [run for run in runs if run.name == name] for name in CHAPTERS}
    return [Chapter(name, held, [report_of(run.folder, known) for run in held]) for name, held in of.items() if held]


def article(made: Sequence[Chapter], opening: str = "", formed: Formed | None = None) -> str:
    """The account in Markdown; figures lie in ``media`` beside it. ``opening``: what stands before the chapters; ``formed``: what
    they found at several checkpoints of a training."""
    out = ["# Where does a plan come from?", "", *([opening.strip(), ""] if opening else []), PREFACE, ""]
    for number, chapter in enumerate(made, 1):
        out += [f"## {number}. {CHAPTERS[chapter.name]}", "", *_body(chapter)]
    if formed is not None:
        out += ["## When does it form?", "", *formation.chapter_of(formed, CHAPTERS)]
    return "\n".join(out).rstrip() + "\n"


def _body(chapter: Chapter) -> Iterator[str]:
    first = chapter.runs[0]
    yield from (chapter.reports[0].told.get("question", ""), "")
    if (said := answer(first.findings)) is not None:
        yield from (f"**{_of(first)}: {said.sentence()}**", "")
    for run, made in zip(chapter.runs, chapter.reports, strict=True):
        yield from (f"- {_of(run)}: {line[0].lower()}{line[1:]}" for line in made.lines if line.startswith(FOUND))
    yield ""
    if chapter.figure is not None:
        yield from (f"![{CHAPTERS[chapter.name]}, {_of(first)}](media/{chapter.figure[0]})", "")
    for key in dict.fromkeys(finding.key for run in chapter.runs for finding in run.findings):
        yield from _claim(key, chapter.runs)
    yield from (*(f"- {_of(run)}: `{shown_command(run.facts['command'])}`" for run in chapter.runs), "")


def _claim(key: str, runs: Sequence[LoadedRun]) -> Iterator[str]:
    """A claim in all runs, with what does not replicate."""
    found = [(run, finding) for run in runs for finding in run.findings if finding.key == key]
    said = [finding.verdict for _, finding in found]
    same = f"all {len(said)} runs: {said[0]}" if len(set(said)) == 1 and len(said) > 1 else _counts(said)
    yield from (f"### {found[0][1].claim}", "", f"Decides: {found[0][1].rule} ({same}).", "")
    yield from ("| run | number | control | twins | verdict |", "|---|---|---|---|---|")
    yield from (_row(run, finding) for run, finding in found)
    yield ""


def _counts(said: Sequence[Any]) -> str:
    return ", ".join(f"{said.count(one)} {one}" for one in dict.fromkeys(said))


def _row(run: LoadedRun, finding: Finding) -> str:
    twins = "; ".join(map(in_words, finding.twins)) or "none ran"
    alone = "without a twin" if finding.verdict == "reproduced" and not finding.twins else ""
    why = f" ({finding.why or alone})" if finding.why or alone else ""
    cells = [_of(run), in_words(finding.number), in_words(finding.control), twins, f"{finding.verdict}{why}"]
    return row(*cells)


def _of(run: LoadedRun) -> str:
    """The model, the task and the items of a run, in a few words; of a folder of weights only its name."""
    config = run.config
    parts = [shown_name(run.facts["model"]["name"]), str(getattr(config, "task", "") or "")]
    parts.append("unseen items" * bool(getattr(config, "confirm", False)))
    seed = getattr(config, "seed", 0)
    return ", ".join(part for part in [*parts, f"seed {seed}" * bool(seed)] if part)
