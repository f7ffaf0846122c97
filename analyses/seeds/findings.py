"""What looking early is worth, against whole runs for the same block calls."""

from __future__ import annotations

import pandas as pd

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import DIFFERENCE, Mean
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.rules import no_room
from cos_interp.analyses.kit.screening import majority_of, screening_table

KINDS = {"latent": "a read-out of the estimate", "scorer": "the scorer", "candidates": "the weight of the right answers"}
PLACEBO = {"shuffled": "a read-out taught other runs' outcomes"}
PICKER, VOTE = "best of equal compute", "majority of equal compute"
SAID = {
    "single": "a single run",
    VOTE: "a majority vote of equal cost",
    PICKER: "a perfect picker among whole runs of equal cost",
}


def looks(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a problem, seed and step, with what every look saw: columns ``scorer, candidates, latent, shuffled``."""
    seen, said = (rows[rows.kind == kind] for kind in ("look", "readout"))
    keys = ["problem", "noise", "step"]
    return seen.drop(columns=["latent", "shuffled"], errors="ignore").merge(said[[*keys, "latent", "shuffled"]], on=keys)


def table(seen: pd.DataFrame, steps: int, by: str) -> pd.DataFrame:
    """:func:`cos_interp.analyses.kit.screening.screening_table` of a look, with the majority vote for the same block calls."""
    known = seen[seen[by].notna()].astype({by: float})
    found = screening_table(known, steps, by)
    if found.empty:
        return found
    runs = {name: runs_of(part) for name, part in known.groupby("problem")}
    votes = [majority_of(runs[problem], cost) for problem, cost in zip(found.problem, found.compute, strict=True)]
    return found.assign(**{VOTE: votes})


def runs_of(part: pd.DataFrame) -> list[tuple[str | None, bool]]:
    """Final answer (None where it is not readable) and whether it is right, of each run of one problem."""
    once = part.drop_duplicates("noise")
    return [(a if isinstance(a, str) else None, bool(right)) for a, right in zip(once.answer, once.solved, strict=True)]


def deciding_step(seen: pd.DataFrame, steps: int) -> int:
    """The last looked at step of the first half; the first one where there is none."""
    known = sorted(int(step) for step in seen.step.unique())
    return max((step for step in known if step + 1 <= steps / 2), default=known[0])


def control_of(found: pd.DataFrame, kind: str) -> str:
    """A perfect picker where the look knows what is right; without one, single runs or a vote, whichever solve more."""
    if kind in ("scorer", "candidates"):
        return PICKER
    return str(found[["single", VOTE]].mean().idxmax())


def findings(result: AnalysisResult) -> list[Finding]:
    seen, steps = looks(result.rows), len(result.sigmas)
    at = seen[seen.step == deciding_step(seen, steps)]
    return [_finding(result, at, steps, kind) for kind in KINDS]


def _finding(result: AnalysisResult, at: pd.DataFrame, steps: int, kind: str) -> Finding:
    key = f"seeds.{kind}"
    found = table(at, steps, kind)
    if found.empty:
        return result.judge(key, Mean([]), f"no look by {KINDS[kind]}", Mean([]).number())
    found = found.set_index("problem")
    name = control_of(found, kind)
    control, gain = found[name], found.screened - found[name]
    unfit = no_room(key, float((found["best of all"] - control).mean()), SAID[name])
    shares = {each: Mean(found[each], bounds=(0, 1)).number() for each in ("screened", "single", name)}
    said = (
        f"finishing only the seed of {at.noise.nunique()} that {KINDS[kind]} likes best at step {int(found.step.iloc[0])}, for "
        f"{found.compute.iloc[0]:.2f} whole runs, solves {shares['screened']} (a single run {shares['single']}); more than "
        f"{SAID[name]}, by"
    )
    return result.judge(key, Mean(gain, bounds=DIFFERENCE), said, shares[name], unfit)
