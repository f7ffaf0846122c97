"""The claims of several runs beside each other: what each found, and what every other has more than the first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.reporting.differences import Difference, between
from cos_interp.analyses.reporting.measures import same
from cos_interp.analyses.reporting.sides import Side

Place = tuple[str, int]  # the key of a rule, and which of that key


@dataclass(frozen=True)
class Claim:
    """A claim as each run has it, None where one does not. ``differences``: of every run but the first; None where one of the
    two has no number."""

    place: Place
    found: tuple[Finding | None, ...]
    differences: tuple[Difference | None, ...]

    @property
    def first(self) -> Finding:
        """The finding of the first run that has one."""
        return next(finding for finding in self.found if finding is not None)

    @property
    def agreed(self) -> bool:
        """Whether all runs have it, with one verdict."""
        return None not in self.found and len({finding.verdict for finding in self.found if finding is not None}) == 1


def claims(sides: Sequence[Side]) -> list[Claim]:
    """All claims, in the order of the runs."""
    held = [dict(_placed(side.run.findings)) for side in sides]
    places = dict.fromkeys(place for found in held for place in found)
    return [_claim(place, [found.get(place) for found in held], sides) for place in places]


def _placed(findings: Sequence[Finding]) -> Iterator[tuple[Place, Finding]]:
    count: dict[str, int] = {}
    for finding in findings:
        name = finding.key or finding.claim
        yield (name, count.get(name, 0)), finding
        count[name] = count.get(name, 0) + 1


def _claim(place: Place, found: Sequence[Finding | None], sides: Sequence[Side]) -> Claim:
    others = zip(found[1:], sides[1:], strict=True)
    return Claim(place, tuple(found), tuple(_difference(found[0], finding, sides[0], side) for finding, side in others))


def _difference(first: Finding | None, second: Finding | None, own: Side, other: Side) -> Difference | None:
    if first is None or second is None or not (first.number.n and second.number.n):
        return None
    return between(first.number, second.number, dict(first.items), dict(second.items), partial(same, own, other))
