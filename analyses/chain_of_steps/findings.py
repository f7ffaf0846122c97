"""What Chain-of-Steps found, by the rules: the rise, its timing, candidates, steps against frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cos_interp.analyses.chain_of_steps.forming import forming, only_inside, within_bound
from cos_interp.analyses.driver.answer import in_words
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import DIFFERENCE, Estimate, Mean, PairedShares, Share
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.kit.verdicts import outcomes, whole

TIMED = 0.3  # share of the steps by which the paper's accuracy is there: step 30 of 100
TIMED_SIGMA = 0.921  # noise level of that step with the paper's scheduler, shift 5
NEAR = 0.05  # a step that far from it in sigma is not its
LEVEL = 0.8  # of the final accuracy, from which on it is a plateau


def solved(rows: pd.DataFrame) -> pd.DataFrame:
    """Share of an item's noises whose estimate is right: a row an item, a column a step; NaN where one has no verdict."""
    return rows.assign(right=outcomes(rows)).pivot_table("right", "problem", "step", sort=False, dropna=False, aggfunc=whole)


def findings(result: AnalysisResult, rows: pd.DataFrame, sigmas: Sequence[float]) -> list[Finding]:
    """All claims from the rows of the steps, judged; ``sigmas`` without the final 0."""
    unique = rows["unique"].astype(bool)
    own = rows.noise == 0
    found = [_rise(result, rows[unique], rows[~unique], len(sigmas))]
    found += [_timing(result, rows[unique & own], rows[~unique & own], key, sigmas) for key in ("steps", "sigma")]
    return [*found, _candidates(result, rows[~unique]), _frames(result, rows), *_fewer(result)]


def more(first: pd.Series, second: pd.Series) -> Estimate:
    """How much more often the first holds, on the same items; with several noises an item a mean of differences of shares."""
    first, second = (side[first.notna() & second.notna()] for side in (first, second))
    yes_or_no = np.isin([*first, *second], (0, 1)).all()
    return PairedShares(first, second) if yes_or_no else Mean(first - second, bounds=DIFFERENCE)


def by_task(items: pd.Series, rows: pd.DataFrame) -> str:
    """The mean of each task, where there are several: one of them may make all of a number.

    >>> of = pd.DataFrame({"problem": ["a", "b", "c"], "task": ["maze", "maze", "place"]})
    >>> by_task(pd.Series({"a": 0.0, "b": 1.0, "c": -0.25}), of)
    'maze 0.50 (n = 2), place -0.25 (n = 1)'
    """
    tasks = rows.drop_duplicates("problem").set_index("problem").task
    parts = items.groupby(tasks.reindex(items.index), sort=False)
    return ", ".join(f"{task} {part.mean():.2f} (n = {len(part)})" for task, part in parts)


def level(items: pd.Series) -> Number:
    """A share of items; their mean where an item has several noises."""
    known = items.dropna()
    return (Share(known) if np.isin(known, (0, 1)).all() else Mean(known)).number()


# --- the rise and when it is there -----------------------------------------------------------------------------------


def _rise(result: AnalysisResult, unique: pd.DataFrame, several: pd.DataFrame, last: int) -> Finding:
    table, beside = solved(unique), solved(several)
    at = lambda found, step: found[step] if len(found) else pd.Series(dtype=float)
    risen = at(table, last) - at(table, 0)
    others = f"with several right answers: {level(at(beside, 0))} and {level(at(beside, last))}"
    return result.judge(
        "chain-of-steps.rise", more(at(table, last), at(table, 0)),
        f"items with one right answer are solved at the end for {level(at(table, last))} ({others}, at step 0 and the end, "
        f"where a blend of two answers is unreadable; the rise by task: {by_task(risen, unique)}); that is more than at "
        "step 0 by",
        level(at(table, 0)),
        short=f"items with one right answer are solved in the final video for {in_words(level(at(table, last)))}; that is more "
        "than from the clean estimate of step 0 by",
    )  # fmt: skip


def timed_step(key: str, sigmas: Sequence[float]) -> int:
    """The step that a timing is read at: by its share of the steps, or nearest in sigma."""
    if key == "steps":
        return round(TIMED * len(sigmas))
    return int(np.abs(np.array(sigmas) - TIMED_SIGMA).argmin())


def reached(table: pd.DataFrame, step: int, stays: bool = True) -> pd.Series:
    """Of the items solved at the end, which are at a step, and, where it ``stays``, at every later one."""
    ended = table[table[max(table)] == 1] if len(table) else table
    if ended.empty:
        return pd.Series(dtype=float)
    return ended.loc[:, step:].min(axis=1, skipna=False) if stays else ended[step]


def _timing(result: AnalysisResult, unique: pd.DataFrame, several: pd.DataFrame, key: str, sigmas: Sequence[float]) -> Finding:
    """One noise an item: a share of shares would be another number than the accuracy's. Items that were read at step 0."""
    step, beside, table = timed_step(key, sigmas), solved(several), solved(unique)
    table = table[table[0].notna()] if len(table) else table
    start, there, unfit = Share(reached(table, 0, stays=False)), Share(reached(table, step, stays=False)), None
    if start.n and start.value >= LEVEL:
        unfit = f"{start.number()} of them are right at step 0 already, before anything could form"
    if key == "sigma" and abs(sigmas[step] - TIMED_SIGMA) > NEAR:
        unfit = f"the run has no step near sigma {TIMED_SIGMA}: {sigmas[step]:.3f} is the nearest"
    return result.judge(
        f"chain-of-steps.timing-{key}", Share(reached(table, step)),
        f"of the items with one right answer that are solved at the end, solved at step {step} of {len(sigmas)} (sigma "
        f"{sigmas[step]:.3f}) are {there.number()}; there and at every later step (with several right answers: "
        f"{Share(reached(beside, step)).number()})",
        start.number(), unfit,
    )  # fmt: skip


# --- candidates ------------------------------------------------------------------------------------------------------


def pruned(several: pd.DataFrame) -> pd.DataFrame:
    """Of every item: how many answers are shown at step 0 and at the end, the same of the control, and ``fewer``, what the
    control leaves of the difference. Noises are averaged.

    Items that end wrong are among them: of those that end solved alone the end shows one answer, whatever came before, and a
    model that solves nothing would have no number.
    """
    columns = ["first", "last", "first_one", "last_one", "bayes"]
    if "shown" not in several or several.empty:
        return pd.DataFrame(columns=[*columns, "fewer"], dtype=float)
    at = several.set_index(["problem", "noise"])
    first, last = at[at.step == 0], at[at.step == at.step.max()]
    last = last[last.shown.notna()]
    first = first.loc[last.index]
    found = pd.DataFrame(dict(zip(columns, (first.shown, last.shown, first.one, last.one, first.bayes), strict=True)))
    found = found.astype(float).groupby("problem").mean()
    return found.assign(fewer=(found["first"] - found["last"]) - (found.first_one - found.last_one))


def _candidates(result: AnalysisResult, several: pd.DataFrame) -> Finding:
    found = pruned(several)
    control = Mean(found.first_one - found.last_one).number()
    return result.judge(
        "chain-of-steps.candidates", Mean(found.fewer),
        f"the estimate shows {Mean(found['first']).number()} right answers at step 0 and {Mean(found['last']).number()} at the "
        f"end (an ideal observer of x_t holds {Mean(found.bayes).number()} possible at step 0); fewer at the end, beyond the "
        "control, by",
        control,
    )  # fmt: skip


# --- steps against frames --------------------------------------------------------------------------------------------


def _frames(result: AnalysisResult, rows: pd.DataFrame) -> Finding:
    found = forming(rows)
    items = found.groupby(["unique", "problem"])[["slope", "inside"]].mean().reset_index()
    unique = items["unique"].astype(bool)
    one, several = items[unique], items[~unique]
    slopes, pixels = (one.set_index("problem")[name].astype(float) for name in ("slope", "inside"))
    unfit = only_inside(slopes, pixels)
    if result.config.num_frames == 1:
        unfit = "a picture has one frame, along which nothing can form"
    elif len(rows) and "frame_1" not in rows:
        unfit = "a scorer judges a video as a whole, and no frame of it"
    return result.judge(
        "chain-of-steps.frames", Mean(within_bound(slopes)),
        "of the items with one right answer that form between step 0 and the end, a latent frame is right to the end later than "
        f"the one before it by {Mean(slopes).number()} steps of 20 (by task: {by_task(slopes, rows)}; with several answers: "
        f"{Mean(several.slope).number()}); the bound minus that slope's size is",
        Mean(within_bound(pixels)).number(), unfit,
    )  # fmt: skip


def _fewer(result: AnalysisResult) -> list[Finding]:
    """Of the items whose first frames are right in the whole video; none where no video of fewer frames was made."""
    rows = result.rows[result.rows.kind == "fewer"]
    if rows.empty:
        return []
    asked = rows[rows.whole.astype(bool)].set_index("problem")
    kept, other = (Share(asked[name].astype(float)) for name in ("fewer", "other"))
    unfit = None
    if other.n and other.value < LEVEL:
        unfit = f"another noise of a whole video keeps them in {other.number()}: there is no such level to be kept"
    frames = int(rows.frames.iloc[0])
    said = f"of the items whose first {frames} frames are right in the whole video, those right in a video of these alone, are"
    return [result.judge("chain-of-steps.fewer-frames", kept, said, other.number(), unfit)]
