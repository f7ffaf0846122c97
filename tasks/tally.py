"""Verdicts counted: shares with intervals, by task, by difficulty, by unique and ambiguous answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from cos_interp.tasks.base import Item, Verdict

Judged = Sequence[tuple[Item, Verdict | None]]


def share_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share (Clopper & Pearson 1934), which covers at least its level at every share and n; NaN for
    none.

    >>> [round(bound, 4) for bound in share_interval(20, 20)]
    [0.8316, 1.0]
    """
    if n == 0:
        return float("nan"), float("nan")
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.isf(tail, successes + 1, n - successes))
    return low, high


def line(judged: Judged) -> dict[str, Any]:
    """Counts of one group of items."""
    status = Counter("missing" if v is None else v.status for _, v in judged)
    errors = Counter(v.error for _, v in judged if v is not None and v.error)
    low, high = share_interval(status["solved"], len(judged))
    shares = {s: status[s] / len(judged) for s in ("solved", "wrong", "undecided", "missing")}
    return {"n": len(judged), **shares, "low": low, "high": high, "errors": dict(errors.most_common())}


def tally(judged: Judged) -> dict[str, Any]:
    """All groups: overall, by task, by task and unique / ambiguous, by task and difficulty."""
    groups: dict[str, list] = {"all": list(judged)}
    for item, verdict in judged:
        kind = "unique" if item.unique else "ambiguous"
        for key in (item.task, f"{item.task} / {kind}", f"{item.task} / difficulty {item.difficulty}", f"/ {kind}"):
            groups.setdefault(key, []).append((item, verdict))
    return {key: line(groups[key]) for key in sorted(groups)}


def as_lines(summary: dict[str, Any]) -> list[str]:
    """The table for a terminal."""
    out = [f"{'':28}    n  solved   95 %           wrong  undecided"]
    for key, row in summary.items():
        missing = f"  missing {row['missing']:.3f}" if row["missing"] else ""
        out.append(
            f"{key:28} {row['n']:4}  {row['solved']:.3f}   {row['low']:.3f}-{row['high']:.3f}    "
            f"{row['wrong']:.3f}  {row['undecided']:.3f}{missing}"
        )
    return out
