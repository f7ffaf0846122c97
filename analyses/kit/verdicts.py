"""Verdicts as columns of results: which rows have one, what became of them, and one number of several of an item."""

from __future__ import annotations

import pandas as pd

from cos_interp.tasks.scorer import SILENT


def whole(values: pd.Series) -> float:
    """The mean of what belongs together, to aggregate by; NaN where one value is missing: the others alone are of other videos
    than the item beside them has, and which ones a scorer fails on is no accident.

    >>> whole(pd.Series([1.0, 0.0])), whole(pd.Series([1.0, float("nan")]))
    (0.5, nan)
    """
    return float(values.mean(skipna=False))


def told(rows: pd.DataFrame) -> pd.Series:
    """Where somebody said what became of a video: not where nobody judged, a scorer failed, or there was no video to look at."""
    known = rows.status.notna()
    return known & ~rows.error.fillna("").astype(str).str.startswith(SILENT) if "error" in rows else known


def outcomes(rows: pd.DataFrame, status: str = "solved") -> pd.Series:
    """1 where a video has a status, 0 where it has another one, NaN without a verdict.

    >>> said = {"status": ["solved", "undecided", "undecided"], "error": ["", "9 frames", "scorer failed: no ball"]}
    >>> outcomes(pd.DataFrame(said)).tolist()
    [1.0, 0.0, nan]
    """
    return (rows.status == status).astype(float).where(told(rows))
