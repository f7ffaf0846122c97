"""What a page says of a scorer that failed: a video without a verdict is one that nobody judged."""

from __future__ import annotations

import pandas as pd

from cos_interp.tasks.scorer import FAILED

REASONS = 3  # that are told


def failing_note(rows: pd.DataFrame) -> list[str]:
    """On how many of the judged videos the scorer failed, and with which words, the most frequent ones; nothing where it did not.

    >>> failing_note(pd.DataFrame({"status": ["solved", "undecided"], "error": [None, "scorer failed: no ball"]}))
    ['The scorer failed on 1 of 2 videos, which have no verdict: no ball (1).']
    """
    if not {"status", "error"} <= set(rows.columns):
        return []
    judged = rows[rows.status.notna()]
    told = judged.error.dropna().astype(str)
    failed = told[told.str.startswith(FAILED)].str.removeprefix(FAILED)
    if failed.empty:
        return []
    reasons = "; ".join(f"{words} ({count})" for words, count in failed.value_counts().head(REASONS).items())
    return [f"The scorer failed on {len(failed)} of {len(judged)} videos, which have no verdict: {reasons}."]
