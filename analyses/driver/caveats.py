"""What a reader must keep in mind, from a fixed list, by what was run."""

from __future__ import annotations

from collections.abc import Sequence

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.findings import Finding

CAVEATS = {
    "cause": "Cause: changing a place shows what it can do to the answer, not that the undisturbed run relies on it alone.",
    "correlation": "Correlation: what can be read or seen somewhere need not be used by the model.",
    "dose": "Dose: only the sizes of change in the table were tried; a larger one may leave what the model knows, a smaller one "
    "may do nothing.",
    "history": "Solver history: the scheduler keeps earlier outputs of the undisturbed run, which pull a changed state back.",
    "experts": "Expert switch: two transformers share the steps, so that a layer's number means other weights on either side.",
    "strict": "Strict reader: an answer counts when every cell of every frame reads, so that 'undecided' can hide a moved plan; "
    "where there is a graded number it stands beside.",
    "unread": "No reader: these problems have no verifier, and distances in latents do not say whose answer a video gives.",
    "seeds": "Weight seeds: this is one model; another one trained from another seed may do otherwise.",
    "untrained": "No twin was run beside it (--twins): what a model of random weights shows by its build alone is not known.",
    "claims": "Several claims stand on this page; their p are not corrected for one another.",
    "few": "Few items: with so small an n the interval is wide, and a missing effect is not an absent one.",
}
CHANGES = {"donor", "dose", "injected", "disturbed", "ablated", "replaced", "knocked", "mode", "cut", "noised"}  # columns of rows
READ = {"status", "whose", "outcome", "solved"}
FEW = 12


def caveats(result: AnalysisResult, findings: Sequence[Finding], named: Sequence[str] = ()) -> list[str]:
    """The caveats of a run: those that an experiment names, and those that its rows, facts and findings call for.

    ``named``: keys of :data:`CAVEATS`; without "cause" or "correlation" among them the columns are asked. ValueError for others.
    """
    if unknown := set(named) - set(CAVEATS):
        raise ValueError(f"unknown caveat {min(unknown)!r}; the caveats are {', '.join(CAVEATS)}")
    columns = set(result.rows.columns)
    found = list(named)
    if not {"cause", "correlation"} & set(named):
        found.append("cause" if columns & CHANGES else "correlation")
    asked = {
        "dose": "dose" in columns,
        "history": any("FlowMatchEuler" not in name for name in _schedulers(result)),
        "experts": "expert" in columns and result.rows["expert"].nunique() > 1,
        "strict": any(result.rows[name].notna().any() for name in columns & READ),
        "few": any(0 < f.number.n < FEW for f in findings),
        "untrained": not any(f.twins for f in findings),
        "claims": sum(f.primary for f in findings) > 1,
        "seeds": True,
    }
    found += [key for key, so in asked.items() if so]
    return [CAVEATS[key] for key in CAVEATS if key in dict.fromkeys(found)]


def _schedulers(result: AnalysisResult) -> set[str]:
    return {facts.scheduler for facts in result.units.values() if hasattr(facts, "scheduler")}
