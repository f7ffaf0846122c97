"""The figures of a comparison: numbers of claims, curves along the steps, maps over steps and depth."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.parts import Section
from cos_interp.analyses.reporting.claims import Claim
from cos_interp.analyses.reporting.measures import LAYER, Group, Laid, all_differences
from cos_interp.analyses.reporting.sides import Side
from cos_interp.reports.drawing import VALUE, Drawing
from cos_interp.reports.figures import Curve, Panel, matrix_maps, panels
from cos_interp.reports.grouped import grouped_points

MOST = 6  # claims of a figure
LETTERS, MOST_LETTERS = 44, 130  # of a line at an axis, of all of them
SMALLEST = 0.01  # end of a scale of differences, where there are none
FOUND, CONTROL = "number that decides", "its control"


def claim_figures(found: Sequence[Claim], held: Sequence[Side]) -> Iterator[Section]:
    """The deciding numbers of the first claims, run by run, and their differences."""
    shown = [claim for claim in found if claim.first.primary and any(f and f.number.n for f in claim.found)][:MOST]
    if not shown:
        return
    numbers = [(_short(claim), pd.DataFrame(_points(claim, held))) for claim in shown]
    said = "Whiskers: 95 % intervals over items; none where a number has none. The control stands beside."
    yield Section("What each run found", grouped_points(numbers), said, key=True)
    apart = [(_short(claim), pd.DataFrame(_apart(claim, held))) for claim in shown if any(claim.differences)]
    if apart:
        said = f"What each run has more than {held[0].name}, with the 95 % interval of the difference; dashed: none."
        yield Section("What the others have more", grouped_points(apart, reference="none"), said)


def _short(claim: Claim) -> str:
    """The claim as it stands at an axis: some short lines."""
    count = claim.place[1]
    words = claim.first.claim if not count else f"{claim.first.claim}, {count + 1}"
    return textwrap.fill(textwrap.shorten(words, MOST_LETTERS, placeholder=" ..."), LETTERS)


def _points(claim: Claim, held: Sequence[Side]) -> Iterator[dict[str, object]]:
    for side, finding in zip(held, claim.found, strict=True):
        for series, number in ((FOUND, finding and finding.number), (CONTROL, finding and finding.control)):
            if number:
                yield {"place": side.name, "series": series, **_bounds(number)}


def _apart(claim: Claim, held: Sequence[Side]) -> Iterator[dict[str, object]]:
    for side, more in zip(held[1:], claim.differences, strict=True):
        if more is not None:
            yield {"place": side.name, "series": more.how.split(" ")[0].rstrip(","), **_bounds(more.number)}
    yield {"place": held[0].name, "series": "none", "mean": 0.0, "low": math.nan, "high": math.nan, "n": math.nan}


def _bounds(number: Number) -> dict[str, Any]:
    return {"mean": number.value, **_ends(number)}


# --- measured columns ------------------------------------------------------------------------------------------------


def sections_of(found: Laid, held: Sequence[Side]) -> Iterator[Section]:
    """The figures of a measured column."""
    if not found.groups:
        return
    title, said = found.measured.title, caption(found, held)
    if len(found.measured.along) == 2:
        yield from _maps(found, held, title, said)
    elif not found.measured.along:
        yield Section(title, _parts(found, held), said, parts_table(found, held))
    else:
        yield Section(title, panels([p for group in found.groups for p in _panels(group, found, held)]), said)


def caption(found: Laid, held: Sequence[Side]) -> str:
    """What is drawn, of how many items, how the differences were taken, and at which points."""
    first = found.groups[0].points[0]
    numbers = ", ".join(f"{side.name} {number.n}" for side, number in zip(held, first.numbers, strict=True))
    how = {bool(more.pairs) for more in all_differences(found)}
    taken = "paired where items are the same, else unpaired"
    if len(how) == 1:
        taken = "paired item by item" if True in how else "unpaired, since the runs do not have the same items"
    if not found.measured.along:
        return f"95 % intervals over items (n: {numbers}). Differences to {held[0].name}: {taken}."
    exact = all(group.exact for group in found.groups)
    points = "points that all runs have" if exact else f"the points of {held[0].name}, where others are interpolated"
    return f"95 % intervals over items (n: {numbers}). Differences to {held[0].name}: {taken}. All at {points}."


def _parts(found: Laid, held: Sequence[Side]) -> Drawing:
    """The parts of a column that has no axis, side by side: each run's number, and what each has more than the first."""
    numbers = [
        {"place": group.name, "series": side.name, **_bounds(number)}
        for group in found.groups for side, number in zip(held, group.points[0].numbers, strict=True)
    ]  # fmt: skip
    apart = [
        {"place": group.name, "series": _less(side, held[0]), **_bounds(more.number)}
        for group in found.groups for side, more in zip(held[1:], group.points[0].differences, strict=True)
    ]  # fmt: skip
    none = {"place": found.groups[0].name, "series": "none", "mean": 0.0, "low": math.nan, "high": math.nan, "n": math.nan}
    return grouped_points([("each run", pd.DataFrame(numbers)), ("difference", pd.DataFrame([*apart, none]))], reference="none")


def parts_table(found: Laid, held: Sequence[Side]) -> pd.DataFrame:
    """A row a part: each run's number, and what each has more than the first."""
    out = []
    for group in found.groups:
        point, row = group.points[0], {"part": group.name or "all"}
        row |= {side.name: str(number) for side, number in zip(held, point.numbers, strict=True)}
        out.append(row | {_less(s, held[0]): str(more) for s, more in zip(held[1:], point.differences, strict=True)})
    return pd.DataFrame(out)


def _panels(group: Group, found: Laid, held: Sequence[Side]) -> Iterator[Panel]:
    deep = found.measured.along == (LAYER,)
    along = "depth" if deep else "step"
    at = [point.depth if deep else point.step for point in group.points]
    xlabel = "relative depth" if deep else f"step of {held[0].name}, sigma"
    every = max(1, len(group.points) // 10)
    ticks = None if deep else {int(p.step): f"{p.step:.0f}\n{p.sigma:.2f}" for p in group.points[::every]}
    line = lambda numbers: pd.DataFrame([{along: x, **_bounds(number)} for x, number in zip(at, numbers, strict=True)])
    curves = [Curve(side.name, line([p.numbers[i] for p in group.points])) for i, side in enumerate(held)]
    named = f"{group.name}: " if group.name else ""
    yield Panel(f"{named}each run", curves, along, xlabel, "mean", ticks)
    apart = [
        Curve(_less(side, held[0]), line([p.differences[i].number for p in group.points])) for i, side in enumerate(held[1:])
    ]  # fmt: skip
    none = pd.DataFrame({along: [at[0], at[-1]], "mean": [0.0, 0.0]})
    yield Panel(f"{named}difference", [*apart, Curve("none", none, ":")], along, xlabel, "difference", ticks)


def _less(side: Side, first: Side) -> str:
    return f"{side.name} less {first.name}"


def _maps(found: Laid, held: Sequence[Side], title: str, said: str) -> Iterator[Section]:
    points = found.groups[0].points
    sigmas = ", ".join(f"{point.step:.0f}: {point.sigma:.2f}" for point in points if point.depth == points[0].depth)
    said = f"{said} Sigma of the steps: {sigmas}."
    own = [(side.name, [[point.numbers[i] for point in g.points] for g in found.groups]) for i, side in enumerate(held)]
    apart = [
        (_less(side, held[0]), [[point.differences[i].number for point in g.points] for g in found.groups])
        for i, side in enumerate(held[1:])
    ]  # fmt: skip
    yield Section(title, _map(found.groups, own, held[0], title.lower(), False), said)
    yield Section(f"{title}: difference", _map(found.groups, apart, held[0], "difference", True), said)


def _map(
    groups: Sequence[Group], named: Sequence[tuple[str, list[list[Number]]]], first: Side, label: str, diverging: bool
) -> Drawing:
    """A map a group and name; of each cell its interval and n."""
    x, y, maps, cells = f"step of {first.name}", "relative depth", [], list[dict[str, object]]()
    for place, group in enumerate(groups):
        for name, numbers in named:
            title = f"{group.name}: {name}" if group.name else name
            here = [
                {"map": title, y: f"{point.depth:.2f}", x: int(point.step), VALUE: number.value, **_ends(number)}
                for point, number in zip(group.points, numbers[place], strict=True)
            ]  # fmt: skip
            maps.append((title, pd.DataFrame(here).pivot_table(VALUE, y, x, dropna=False, sort=False)))
            cells += here
    table = pd.DataFrame(cells)
    top = max(SMALLEST, float(table[VALUE].abs().max(skipna=True) or 0)) if diverging else 0.0
    return matrix_maps(maps, x, y, label, (-top, top) if diverging else None, diverging).explored(table)


def _ends(number: Number) -> dict[str, Any]:
    """Its interval, where both ends are known."""
    bounded = math.isfinite(number.low) and math.isfinite(number.high)
    return number.ends | ({} if bounded else {"low": math.nan, "high": math.nan})
