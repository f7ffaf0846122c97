"""What a longer item costs, and what a longer video costs, on the same scenes."""

from __future__ import annotations

import pandas as pd

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import PairedShares, Share
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.rules import rules
from cos_interp.analyses.lengths import BEYOND, TRAINED, WITHIN


def by_video(rows: pd.DataFrame) -> pd.DataFrame:
    """Whether a scene's videos are right, a column each."""
    return rows.pivot_table("solved", "problem", "video").reindex(columns=[TRAINED, WITHIN, BEYOND])


def apart(rows: pd.DataFrame) -> pd.DataFrame:
    """The scenes whose short item has a video of its own, as long as the long item's. Where it is the beginning of that one, as
    of a ball that rolls on, it is right wherever the whole is: such a scene can only fall."""
    frames = rows.pivot_table("frames", "problem", "video").reindex(columns=[WITHIN, BEYOND])
    return rows[rows.problem.isin(frames.index[frames[WITHIN] == frames[BEYOND]])]


def findings(result: AnalysisResult) -> list[Finding]:
    table, own = by_video(result.rows), by_video(apart(result.rows))
    begun = table.drop(own.index)
    left_out = f" (left out, the beginning of the same video: {len(begun)} scenes)" if len(begun) else ""
    return [
        _falls(result, "lengths.items", own[WITHIN], own[BEYOND], "items beyond the trained lengths",
               "items of the same scenes within them, in videos of as many frames", left_out),
        _falls(result, "lengths.videos", table[TRAINED], table[WITHIN], "items within the trained lengths in longer videos",
               "the same in videos as long as trained ones"),
    ]  # fmt: skip


def _falls(
    result: AnalysisResult, key: str, control: pd.Series, longer: pd.Series, what: str, beside: str, left_out: str = ""
) -> Finding:  # fmt: skip
    level, smallest = Share(control).number(), rules()[key].smallest
    unfit = f"the model solves {level.value:.2f} of {beside}: too few to lose {smallest:g}" if level.value < smallest else None
    said = f"of {what} {Share(longer).number()} are solved; fewer than of {beside}{left_out}, by"
    return result.judge(key, PairedShares(control, longer), said, level, unfit)
