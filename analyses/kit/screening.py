"""Early looks at a run: how well they predict its verdict, and what screening seeds by them is worth. Pure maths.

After ChEaP (Newman et al., 2603.30043): start many seeds, look early, finish the most promising one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd

from cos_interp.tasks import Verdict, grid

CELLS = grid.FRAMES * grid.ROWS * grid.COLS

VOTES = "Where a judge names no answers, a vote counts all right videos as one answer, and all wrong ones as another."


def look_score(verdict: Verdict) -> float:
    """How promising a clean estimate looks: solved 1, wrong 0, undecided up to one half by its share of readable cells."""
    if verdict.status == "undecided":
        return 0.5 * (1 - verdict.readings["unreadable_cells"] / CELLS)
    return float(verdict.solved)


def best_of(solved: Sequence[bool], m: float) -> float:
    """Expected share solved when ``m`` of the runs are finished and a perfect verifier picks: ``1 - C(f, m) / C(K, m)`` with
    f failures among K runs; linear between whole numbers of runs.

    >>> best_of([True, False], 1), best_of([True, False], 2), best_of([True, False], 1.5)
    (0.5, 1.0, 0.75)
    """
    count, failures = len(solved), len(solved) - sum(solved)
    m = min(max(m, 1.0), count)
    low = int(m)

    def exact(runs: int) -> float:
        return 1 - comb(failures, runs) / comb(count, runs)

    return exact(low) if low == m else (1 - (m - low)) * exact(low) + (m - low) * exact(low + 1)


def voted(runs: Sequence[tuple[str | None, bool]]) -> bool:
    """Whether the answer that most runs give is right; of answers with equal counts the first one stands. ``runs``: answer (None:
    unreadable) and whether it is right.

    >>> voted([("left", False), ("up", True), (None, False), ("up", True)]), voted([(None, False)])
    (True, False)
    """
    readable = [(answer, right) for answer, right in runs if answer is not None]
    if not readable:
        return False
    most = Counter(answer for answer, _ in readable).most_common(1)[0][0]
    return any(right for answer, right in readable if answer == most)


def majority_of(runs: Sequence[tuple[str | None, bool]], m: float) -> float:
    """Expected share solved when ``m`` of the runs are finished and vote; linear between whole numbers of runs.

    >>> majority_of([("a", True), ("a", True), ("b", False)], 2)
    1.0
    """
    m = min(max(m, 1.0), len(runs))
    low = int(m)
    exact = lambda size: float(np.mean([voted(some) for some in combinations(runs, size)]))
    return exact(low) if low == m else (1 - (m - low)) * exact(low) + (m - low) * exact(low + 1)


def screened(scores: Sequence[float], solved: Sequence[bool]) -> float:
    """Chance that the run with the best early score is solved (ties are drawn evenly)."""
    each = np.asarray(scores, float)
    return float(np.asarray(solved, float)[each == each.max()].mean())


def equal_compute(runs: int, step: int, steps: int) -> float:
    """Whole runs that cost as many steps as starting ``runs`` runs, looking after ``step``, and finishing one."""
    return (runs * (step + 1) + (steps - step - 1)) / steps


def screening_table(looks: pd.DataFrame, steps: int, by: str = "score") -> pd.DataFrame:
    """One row a (problem, step): accuracy of a single run, screened, best-of-m at equal compute, and of all runs.

    ``looks`` has a row a (problem, noise, step) with ``solved`` (the final verdict) and a column ``by`` of what the look saw.
    """
    out = []
    for (problem, step), at in looks.groupby(["problem", "step"], sort=False):
        solved = at.solved.astype(bool).tolist()
        equal = equal_compute(len(solved), int(step), steps)
        out.append({
            "problem": problem, "step": step, "sigma": at.sigma.iloc[0], "single": float(np.mean(solved)),
            "screened": screened(at[by].tolist(), solved), "best of equal compute": best_of(solved, equal),
            "best of all": float(any(solved)), "compute": equal,
        })  # fmt: skip
    return pd.DataFrame(out)
