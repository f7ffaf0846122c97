"""What the ensemble gains over single runs and over one seed at the same norm, and its page."""

from __future__ import annotations

import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import DIFFERENCE, Mean, PairedShares
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.driver.kept import kept_clips, listed
from cos_interp.analyses.driver.rules import no_room
from cos_interp.analyses.driver.statistics import mean_number, points
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.ensemble import EnsembleFacts
from cos_interp.analyses.kit.screening import VOTES
from cos_interp.analyses.kit.verdicts import whole
from cos_interp.reports.drawing import Drawing
from cos_interp.reports.figures import bars

ROOM = 0.1  # share unsolved below which a gain of a few per cent has no place to be: three times what the paper reports
SINGLE, EQUAL = "mean of single runs", "best of equal compute"
QUESTION = (
    "Several noises of one problem explore different candidates. Does merging them inside the model, before the plan is "
    "chosen, give a better answer than one of them alone, and than spending the same compute on independent runs?"
)

VIDEOS = (
    "One run, and what merging makes of it, with the same seeds alone at the merged norm; of several videos the first. Table: "
    "the share that each method solves of every item; those with a link have their videos here."
)


class Gain(Mean):
    """Of shares of a few seeds each, which are as coarse as pairs of outcomes, and decide from as many items on."""

    least = PairedShares.least


def by_item(rows: pd.DataFrame) -> pd.DataFrame:
    """Solved share, a row an item and a column a method, repeats averaged: an item counts once, however many noises it has. A
    method without a verdict in one of them has none of the item, and none at all where a scorer says nothing of any."""
    each = rows.astype({"solved": float}).groupby(["problem", "repeat", "method"], sort=False).solved.agg(whole).unstack("method")
    table = each.groupby("problem", sort=False).agg(whole)
    return table.reindex(columns=list(dict.fromkeys([*table, SINGLE, EQUAL])))


def findings(result: AnalysisResult, rows: pd.DataFrame) -> list[Finding]:
    """Of all rows, judged or not: an item counts where every video of it was."""
    each = by_item(rows)
    return [_finding(result, tensor, each) for tensor in rows.tensor.dropna().unique()]


def _finding(result: AnalysisResult, tensor: str, each: pd.DataFrame) -> Finding:
    """What one merged tensor gains over whichever solves more: the same seeds alone, or alone at the merged norm. Of the items
    that have all three."""
    three = each.reindex(columns=[f"ensemble of {tensor}", f"one seed, {tensor} scaled", SINGLE]).dropna()
    own, scaled, single = (three[method] for method in three)
    base = single if single.mean() >= scaled.mean() else scaled
    beside = f"single runs {_mean(single)}, the same seeds at the merged norm {_mean(scaled)}"
    said = f"ensemble of {tensor} solves {_mean(own)}, {beside}; its gain over the better of the two is"
    gain = Gain(own - base)  # without bounds: where no item differs nothing was merged, or nothing is solved
    full = no_room(
        f"ensemble.{tensor}", 1 - float(base.mean()), "runs alone", "take fewer steps (--num-steps 4) or harder items", ROOM
    )
    return result.judge(f"ensemble.{tensor}", gain, said, _mean(base), full)


def _mean(items: pd.Series, bounds: tuple[float, float] | None = (0, 1)) -> Number:
    """The mean over items with its 95 % interval, beside the number that decides: of a share, where nothing else is said."""
    return mean_number(items.to_numpy(float), bounds)


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows, config = result.rows, result.config
    judged = rows[rows.solved.notna()]
    seeds, steps = config.seeds, ", ".join(map(str, config.steps))
    notes = [
        f"{seeds} seeds, merged in steps {steps} ({config.combine}); afterwards only the first seed goes on. Final: the final "
        f"latents are merged, at the cost of {seeds} runs."
    ]
    sections = []
    if judged.empty:
        notes.append("These problems have no verifier: only how far the result moves is shown.")
    else:
        ensembles = "of one ensemble" if config.repeats == 1 else f"the mean of {config.repeats} ensembles"
        caption = (
            f"Bars: 95 % intervals, {judged.problem.nunique()} items, each {ensembles}. "
            "Dashed: single runs. One seed, scaled: the same seeds alone, the merged tensor at the norm that merging leaves. "
            f"{VOTES}"
        )
        sections = [pages.Section("Accuracy", _bars(judged), caption, _table(judged)), _videos(result, judged, store)]
    moved = rows[rows.distance.notna()].groupby(["method", "problem"]).distance.mean()
    spread = [
        {"method": m, "|result - single run| / |single run|": str(_mean(part, None))} for m, part in moved.groupby("method")
    ]
    sections.append(pages.Section("How far the result moves", table=pd.DataFrame(spread)))
    found = [] if judged.empty else findings(result, rows)
    return pages.build(result, "Training-free ensemble", QUESTION, "CoS section 6", found, sections, notes, ("cause",))


def _videos(result: AnalysisResult, rows: pd.DataFrame, store: RunStore) -> pages.Section:
    """A single run beside the ensembles and their controls; what each method solves of every item."""
    reels = [one.reel(say={"solved": "solved"}) for one in kept_clips(result, store, EnsembleFacts)]
    return pages.Section("Item by item", caption=VIDEOS, reels=reels, table=listed(by_item(rows), rows, reels))


def _bars(rows: pd.DataFrame) -> Drawing:
    each = by_item(rows)
    numbers = {method: _mean(each[method]) for method in each}
    return bars(points(numbers, "name"), "solved", numbers[SINGLE].value)


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    """By method and task: solved, cost, and the paired differences to the single runs and to a perfect pick at equal compute."""
    each, out = by_item(rows), []
    tasks = rows.drop_duplicates("problem").set_index("problem").task.reindex(each.index)
    for method, cost in rows.drop_duplicates("method").set_index("method").compute.items():
        row = {"method": method, "compute, runs": float(cost), "all": str(_mean(each[method]))}
        row["gain over single runs"] = str(_mean(each[method] - each[SINGLE], DIFFERENCE))
        row["gain over the best of equal compute"] = str(_mean(each[method] - each[EQUAL], DIFFERENCE))
        row |= {str(task): str(_mean(part)) for task, part in each[method].groupby(tasks, sort=False)}
        out.append(row)
    return pd.DataFrame(out)
