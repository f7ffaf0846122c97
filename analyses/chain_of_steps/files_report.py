"""The page of decoded steps that another program left: scores along them, beside what a video without reasoning gets."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd

from cos_interp.analyses.chain_of_steps import SampleFacts
from cos_interp.analyses.chain_of_steps.beside import FROZEN, OF_TRUTH, TRUE
from cos_interp.analyses.chain_of_steps.files import at_any_rate
from cos_interp.analyses.chain_of_steps.findings import more
from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.facts import RunFacts
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.driver.prompt_lists import LAST, TRUTH
from cos_interp.analyses.driver.statistics import curve, graded, mean_number
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.problems import READING
from cos_interp.analyses.kit.verdicts import outcomes
from cos_interp.reports.figures import Curve, Panel, panels
from cos_interp.tasks.impostors import SHORTCUTS
from cos_interp.tasks.scorer import SILENT, UNREAD, UNTIMED

GROUPED = {"part": "category", "task": "task", "dimension": "dimension", "split": "split"}
ENDED = tuple(name for name in SHORTCUTS if name != FROZEN)  # those that need a last frame
MOST = 3  # files that a note names
RATE_RULE = (
    " Frames are held against frames: a video is judged where each is shown within half a frame's time of its place at the rate "
    "of the true video or, without one, of most videos of the sample; --any-rate judges all."
)
# of files without a verdict, what is said and what can be done about it
NO_VERDICT = {UNREAD: ("cannot be read", ""), UNTIMED: ("have another frame rate", RATE_RULE)}
SOLVED = "solved"  # the score of a strict judge
SCORE = f"{READING}score"  # that of one who grades only
QUESTION = (
    "At which step is the answer there, in videos that another program made? Every decoded step is judged, and beside them the "
    "true video and three that show no reasoning: its first frame frozen, a jump to its last frame, a fade between them."
)
NO_JUDGE = "Nobody judged these videos: give --scorer, --scorer-cmd or --labels. Only the distance to the final video is shown."
NO_LABELS = "Labels are of the folder's own videos: nothing stands beside the scores, and a frozen picture may have the same."
# what would make the videos that are not there
REMEDIES = {TRUE: f"{TRUTH} below --truth", FROZEN: "a video that can be read"} | dict.fromkeys(
    ENDED, f"{TRUTH} or {LAST[0]} below --truth"
)
NO_END = "no sample has a picture of its end, so that neither a jump to it nor a fade stands beside the frozen frame"
BESIDE = (
    "Means over items with 95 % intervals. Where a frozen picture, a jump or a fade has the score of the "
    "model, the scorer does not measure reasoning there."
)


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows = result.rows.assign(**{SOLVED: outcomes(result.rows)})
    steps, beside = rows[rows.kind == "steps"], rows[rows.kind == "beside"]
    measures = measured(steps)
    found = [_beyond(result, steps, beside)] if measures and len(beside) else []
    notes = _unmade(result, steps, beside) if measures else [NO_JUDGE]
    notes += _lacking(result) + _without(steps) + _rates(result, steps)
    sections = [
        *(_scores(steps, beside, measures) if measures else []),
        _distance(steps),
        pages.Section(
            "Decoded steps", None, "Rows: steps from first to last, the final video last.", clips=_strips(result, store)
        ),
    ]
    return pages.build(result, "Chain-of-Steps in videos", QUESTION, "CoS section 3.1", found, sections, notes)


def _scores(steps: pd.DataFrame, beside: pd.DataFrame, measures: list[str]) -> list[pages.Section]:
    return [
        pages.Section("Scores along the steps", panels(_panels(steps, beside, measures)), "Bands: 95 % over items."),
        pages.Section("Beside them", caption=BESIDE, table=table(steps, beside, measures)),
    ]


def measured(steps: pd.DataFrame) -> list[str]:
    """What was judged: the strict verdict, then every reading; nothing where nobody judged.

    A reading that some items of a task have and others do not, like the share of one of its own routes, tells of no task. Items
    of which the judge said nothing at all, as of damaged files, do not count here.
    """
    readings = _whole_readings(steps)
    strict = steps.status.isin(["solved", "wrong"]).any() or (not readings and steps.status.notna().any())
    return ([SOLVED] if strict else []) + readings


def _whole_readings(steps: pd.DataFrame) -> list[str]:
    """Those that every item of some task has, of the items that have a reading or a verdict at all."""
    named = [str(column) for column in steps if str(column).startswith(READING)]
    held = steps.groupby("problem").agg({"task": "first", SOLVED: "count", **dict.fromkeys(named, "count")})
    counts = held.set_index("task").loc[(held[[SOLVED, *named]] > 0).any(axis=1).to_numpy()]
    whole = counts[named].gt(0).groupby(level=0).all().any()
    return [name for name in named if whole[name]]


def at_end(steps: pd.DataFrame) -> pd.DataFrame:
    """The row of each item's final video; none of an item that lacks it."""
    return steps[steps.final.astype(bool)]


def decisive(steps: pd.DataFrame) -> str:
    """The score that decides: solved, where the judge is strict, else the reading ``score``, else the first."""
    measures = measured(steps)
    return next((name for name in (SOLVED, SCORE) if name in measures), measures[0])


def _beyond(result: AnalysisResult, steps: pd.DataFrame, beside: pd.DataFrame) -> Finding:
    """By item, and against the best of the three, so that none of them is chosen after the numbers. An item that has not all
    three is left out; where none has, the frozen frame alone decides nothing."""
    name = decisive(steps)
    final = at_end(steps).set_index("problem")[name].reindex(steps.problem.unique())
    silent = int(final.isna().sum())
    without = f"; {silent} of {len(final)} have none, and are left out" if silent else ""
    held = beside[beside.video.isin(SHORTCUTS)].groupby("problem")
    whole = held.video.nunique() == len(SHORTCUTS)
    best = held[name].max()[whole if whole.any() else slice(None)]
    both = pd.DataFrame({"final": final, "best": best}).dropna()
    three = "the best of a frozen first frame, a jump to the end and a fade" if whole.any() else "a frozen first frame"
    partly = f" (in the {int(whole.sum())} of {len(final)} that have all three)" if 0 < whole.sum() < len(final) else ""
    return result.judge(
        "chain-of-steps.beyond-shortcuts",
        more(both.final, both.best) if name == SOLVED or are_outcomes(both.stack()) else Mean(both.final - both.best),
        f"the final videos have {name.removeprefix(READING)} {_told(both.final, name)}{without}; that is more than "
        f"{three}{partly} by",
        _number(both.best, name),
        None if whole.any() else NO_END,
    )


def _unmade(result: AnalysisResult, steps: pd.DataFrame, beside: pd.DataFrame) -> list[str]:
    """What of the videos beside the steps could not be made, of how many samples, and what would make it; of what others are."""
    samples = steps.problem.nunique()
    if result.config.labels is not None:
        return [NO_LABELS]
    made = beside.groupby("video").problem.nunique() if len(beside) else pd.Series(dtype=int)
    lacking: dict[str, list[str]] = {}
    for video, remedy in REMEDIES.items():
        if gone := samples - int(made.get(video, 0)):
            lacking.setdefault(f"of {gone} of {samples} samples, which {remedy} would make", []).append(video)
    notes = [f"Not there: {' and '.join(videos)} {why}." for why, videos in lacking.items()]
    of = beside.drop_duplicates("problem").made_of.value_counts() if len(beside) else pd.Series(dtype=int)
    if set(of.index) - {OF_TRUTH}:
        notes.append(f"First frames beside the steps are those of {'; '.join(f'{what} ({n})' for what, n in of.items())}.")
    return notes


def _panels(steps: pd.DataFrame, beside: pd.DataFrame, measures: list[str]) -> list[Panel]:
    axis: dict[str, Any] = {"along": "step", "xlabel": _xlabel(steps)}
    made = []
    for name in measures:
        known = steps[steps[name].notna()]
        curves = [Curve("steps", curve(known, name))]
        places = [known.step.min(), known.step.max()]
        for video in (*SHORTCUTS, TRUE):
            part = of_video(beside, video, name, known.problem)
            if len(part):
                curves.append(Curve(video, pd.DataFrame({"step": places, "mean": [part.mean()] * 2}), "--"))
        made.append(Panel(name.removeprefix(READING), curves, ylabel="share of items" if name == SOLVED else "reading", **axis))
    return made


def _xlabel(steps: pd.DataFrame) -> str:
    known = steps.sigma[steps.sigma.fillna(0) > 0]
    if known.empty:
        return "step (its noise level is not known)"
    first, last = known.max(), known.min()
    return f"step (sigma {first:.2f} to {last:.2f}; the last is the final video)"


def table(steps: pd.DataFrame, beside: pd.DataFrame, measures: list[str]) -> pd.DataFrame:
    """Every measure of all items and by each way to group them: final video, shortcuts, true video."""
    end, out = at_end(steps), []
    for items, members in _groups(end):
        for measure in measures:
            row: dict[str, Any] = {"items": items, "n": len(members), "measure": measure.removeprefix(READING)}
            row["final video"] = _told(end[end.problem.isin(members)][measure], measure)
            row |= {video: _told(of_video(beside, video, measure, members), measure) for video in (*SHORTCUTS, TRUE)}
            out.append(row)
    return pd.DataFrame(out)


def _groups(end: pd.DataFrame) -> list[tuple[str, pd.Series]]:
    """All items, and those of each category (task, where no category is known), dimension and split, where there are several."""
    ways = ["part" if (end.part != "").any() else "task", "dimension", "split"]
    found = [("all", end.problem)]
    for way in ways:
        groups = [(str(name) or f"no {GROUPED[way]}", part.problem) for name, part in end.groupby(way, sort=True)]
        found += [
            (f"{GROUPED[way]} {name}" if way != "task" else name, members)
            for name, members in groups[: None if groups[1:] else 0]
        ]
    return found


def of_video(beside: pd.DataFrame, video: str, measure: str, members: pd.Series) -> pd.Series:
    """A measure of one of the videos beside the steps, of the items that are members; empty where there is none."""
    if beside.empty or measure not in beside:
        return pd.Series(dtype=float)
    return beside[(beside.video == video) & beside.problem.isin(members)][measure].dropna()


def _told(values: pd.Series, measure: str) -> str:
    return str(_number(values, measure)) if values.notna().any() else "–"


def _number(values: pd.Series, measure: str) -> Number:
    """A share of items, or the mean of a reading."""
    return mean_number(values) if measure == SOLVED or are_outcomes(values) else graded(values)


def are_outcomes(values: pd.Series) -> bool:
    """Whether a reading says yes or no: 0 of some and 1 of all others. One that is 1 for all may be a grade."""
    return set(values.dropna()) == {0, 1}


def _without(steps: pd.DataFrame) -> list[str]:
    """How many files have no verdict, and which; why others are undecided, most frequent first; of those on which a scorer failed
    every page tells."""
    told = steps[steps.status.ne("wrong") & steps.error.fillna("").ne("")].error.astype(str)
    notes = []
    for kind, (said, remedy) in NO_VERDICT.items():
        found = told[told.str.startswith(kind)].str.removeprefix(kind)
        if len(found):
            notes.append(f"{len(found)} of {len(steps)} videos {said}, and have no score: {'; '.join(found.head(MOST))}.{remedy}")
    errors = told[~told.str.startswith(SILENT)].value_counts()
    return notes + [f"Undecided, {count} videos: {error}" for error, count in errors.head(5).items()]


def _rates(result: AnalysisResult, steps: pd.DataFrame) -> list[str]:
    """Which frame rates there are, where they did not count."""
    if not at_any_rate(result.config):
        return []
    counts = steps.rate.map(lambda rate: "unknown or varying" if pd.isna(rate) else f"{rate:.4g} a second").value_counts()
    return [f"Frame rates did not count: {'; '.join(f'{rate} ({count})' for rate, count in counts.items())}."]


def _lacking(result: AnalysisResult) -> list[str]:
    """What is not there of the samples' steps, most frequent first."""
    told = Counter(facts.lacking for facts in result.units_of(SampleFacts).values() if facts.lacking)
    return [f"Of {count} of {len(result.units)} samples: {what}." for what, count in told.most_common(5)]


def _distance(steps: pd.DataFrame) -> pages.Section:
    known = steps[steps.distance.notna()]
    if known.empty:
        why = "No step can be compared with the final video: there is none, or sizes differ."
        return pages.Section("Distance to the final video", caption=why)
    curves = [Curve(str(name), curve(part, "distance")) for name, part in known.groupby("task", sort=False)]
    panel = Panel("", curves[:12], "step", _xlabel(steps), "root mean square, of 1")
    return pages.Section("Distance to the final video", panels([panel]))


def _strips(result: AnalysisResult, store: RunStore) -> list[pages.Clip]:
    units = [(name, facts) for name, facts in result.units_of(RunFacts).items() if facts.axes][:6]
    return [
        pages.Clip(name, f"“{facts.prompt[:200]}”", pages.strip(store.tensors(name)["frames"].numpy())) for name, facts in units
    ]
