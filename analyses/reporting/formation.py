"""When does it form? The deciding numbers of an account's chapters along the training of one model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from cos_interp.analyses.driver.answer import deciding, in_words
from cos_interp.analyses.driver.errors import RunError
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.driver.identity import shown_name
from cos_interp.analyses.driver.loaded import LoadedRun
from cos_interp.analyses.driver.markdown import row
from cos_interp.reports.drawing import Drawing
from cos_interp.reports.figures import Curve, Panel, panels

FIGURE = "formation.svg"
CAPTION = (
    "The deciding number of each chapter, its control subtracted, at checkpoints of one training; bands: 95 % intervals. At 0 "
    "steps: models of random weights, where any of their items counts. Dotted: the smallest effect of interest, which the "
    "interval of a reproduced claim lies above."
)
BEYOND = {
    "posterior": "total variation, nearer than controls", "seed-choice": "share of runs, beyond controls",
    "circuit": "share of the way, beyond controls", "steering": "share of the way, beyond controls",
}  # fmt: skip
NEEDED, RANDOM = "smallest effect of interest", "random weights"
Point = tuple[int, str, Finding]  # training steps, model, the deciding finding


def steps_of(given: Sequence[str]) -> dict[str, int]:
    """Training steps by the name of a model, of what was asked. RunError for what is no NAME=STEPS, and for a name twice.

    >>> steps_of(["organism:young=4000", "organism:seed1=12000"])
    {'organism:young': 4000, 'organism:seed1': 12000}
    """
    found: dict[str, int] = {}
    for text in given:
        name, _, steps = text.rpartition("=")
        if not name or not steps.isdecimal() or name in found:
            raise RunError(f"--trained {text}: give NAME=STEPS, once for each model, like organism:young=4000")
        found[name] = int(steps)
    return found


def points(runs: Sequence[LoadedRun], trained: Mapping[str, int]) -> list[Point]:
    """A chapter's runs of these models, of the first one's task, in the order of their training. Of several runs of a model the
    first counts."""
    found: dict[str, Point] = {}
    tasks = list[str]()
    for run in runs:
        name, finding = _name(run), deciding(run.findings)
        if name in trained and finding is not None:
            tasks.append(str(getattr(run.config, "task", "")))
            if tasks[-1] == tasks[0]:
                found.setdefault(name, (trained[name], name, finding))
    return sorted(found.values(), key=lambda point: point[0])


def along(chapters: Mapping[str, Sequence[LoadedRun]], trained: Mapping[str, int]) -> dict[str, list[Point]]:
    """By chapter, those with two checkpoints at least. RunError for a model that no run is of, and where no chapter has two."""
    there = {_name(run) for runs in chapters.values() for run in runs}
    if missing := [name for name in trained if name not in there]:
        raise RunError(f"--trained {missing[0]}: no run is of it; there are runs of {', '.join(sorted(there))}")
    found = {name: points(runs, trained) for name, runs in chapters.items()}
    kept = {name: held for name, held in found.items() if len(held) > 1}
    if not kept:
        raise RunError("--trained: no chapter has runs of two of these models: give runs of several checkpoints of one training")
    return kept


def drawn(found: Mapping[str, Sequence[Point]], titles: Mapping[str, str]) -> Drawing:
    """A panel a chapter: its number against training steps, its twins at 0."""
    return panels([_panel(titles[name], BEYOND[name], held) for name, held in found.items()])


def _panel(title: str, label: str, held: Sequence[Point]) -> Panel:
    last = held[-1]
    ends, smallest = [0, last[0]], last[2].smallest
    curves = [Curve("the model", _table([(steps, finding.number) for steps, _, finding in held]))]
    curves += [Curve(NEEDED, pd.DataFrame({"trained": ends, "mean": [smallest] * 2}), ":")] * (smallest == smallest)
    twins = _table([(0, number) for number in last[2].twins])
    curves += [Curve(RANDOM, twins, "x")] * len(twins[:1])
    ticks = {0: "0", **{steps: f"{steps:,}" for steps, _, _ in held}}
    return Panel(title, curves, "trained", "steps of training", label, ticks, _bounds(curves))


def _bounds(curves: Sequence[Curve]) -> tuple[float, float]:
    """All that a panel shows, and 0."""
    shown = [0.0, *(float(v) for c in curves for name in ("mean", "low", "high") if name in c.table for v in c.table[name])]
    margin = 0.06 * (max(shown) - min(shown))
    return min(shown) - margin, max(shown) + margin


def _table(numbers: Sequence[tuple[int, Number]]) -> pd.DataFrame:
    """Numbers that have a value, as the rows of a curve."""
    kept = [(at, number) for at, number in numbers if not math.isnan(number.value)]
    finite = lambda value, else_: value if math.isfinite(value) else else_
    ends = lambda n: {"low": finite(n.low, n.value), "high": finite(n.high, n.value)}
    return pd.DataFrame([{"trained": at, **n.point, **ends(n)} for at, n in kept])


def chapter_of(found: Mapping[str, Sequence[Point]], titles: Mapping[str, str]) -> Iterator[str]:
    """The lines of the article: the figure, and its numbers with what random weights have."""
    yield from (f"![When does it form?](media/{FIGURE})", "", CAPTION, "")
    yield from ("| | model | steps of training | beyond its control | its control | verdict |", "|---|---|---|---|---|---|")
    for name, held in found.items():
        for steps, model, finding in held:
            yield row(titles[name], model, f"{steps:,}", in_words(finding.number), in_words(finding.control), finding.verdict)
        for twin in held[-1][2].twins:
            yield row(titles[name], RANDOM, "0", in_words(twin), "", "")
    yield ""


def _name(run: LoadedRun) -> str:
    return shown_name(run.facts["model"]["name"])
