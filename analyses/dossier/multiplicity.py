"""Many claims at once: the false discovery rate over a dossier's primary findings (Benjamini & Hochberg 1995)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from cos_interp.analyses.dossier import ExperimentFacts
from cos_interp.analyses.driver.estimates import LEVEL
from cos_interp.analyses.driver.findings import Finding

RATE = 0.05
ONE_SIDED = (1 - LEVEL) / 2  # p of a claim whose interval lies above its smallest effect is below it


def corrected(units: Mapping[str, ExperimentFacts]) -> dict[str, ExperimentFacts]:
    """The same experiments, where a primary finding that is reproduced by itself and not among all of them is undecided."""
    from scipy.stats import false_discovery_control

    tested = [(name, place) for name, unit in units.items() for place, one in enumerate(unit.findings) if _counts(one)]
    if not tested:
        return dict(units)
    adjusted = false_discovery_control([_told(units[name].findings[place]) for name, place in tested])
    q = dict(zip(tested, map(float, adjusted), strict=True))
    return {
        name: unit.model_copy(
            update={"findings": tuple(_held(one, q.get((name, place)), len(tested)) for place, one in enumerate(unit.findings))}
        )
        for name, unit in units.items()
    }


def _counts(finding: Finding) -> bool:
    return finding.primary and not math.isnan(finding.p)


def _told(finding: Finding) -> float:
    """Its p; 1 where it is not reproduced whatever its p, since a twin shows as much or too few items differ: so small a
    p would make room for a false one among the claims that are told as found."""
    return finding.p if finding.verdict == "reproduced" or finding.p > ONE_SIDED else 1.0


def _held(finding: Finding, q: float | None, claims: int) -> Finding:
    if q is None:
        return finding
    if q <= RATE or finding.verdict != "reproduced":
        return replace(finding, q=q)
    return replace(finding, q=q, verdict="undecided", why=f"multiplicity: q = {q:.2f} among {claims} claims")
