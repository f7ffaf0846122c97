"""The figures of a comparison: numbers of claims, curves along the steps, maps over steps and depth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.pages import Section
from cos_interp.analyses.reporting.claims import Claim
from cos_interp.analyses.reporting.measures import LAYER, Group, Laid, all_differences
from cos_interp.analyses.reporting.sides import Side
from cos_interp.reports.drawing import VALUE
from cos_interp.reports.figures import Curve, Panel, matrix_maps, panels
from cos_interp.reports.grouped import grouped_points

MOST = 6  # claims of a figure
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
    name, count = claim.place
    return name if not count else f"{name}, {count + 1}"


def _points(claim: Claim, held: Sequence[Side]) -> Iterator[dict[str, object]]:
    for side, finding in zip(held, claim.found, strict=True):
        for series, number in ((FOUND, finding and finding.number), (CONTROL, finding and finding.control)):
            if number:
                yield {"place": side.name, "series": series, **_bounds(number)}


def _apart(claim: Claim, held: Sequence[Side]) -> Iterator[dict[str, object]]:
    for side, more in zip(held[1:], claim.differences, strict=True):
        if more is not None:
            yield {"place": side.name, "series": more.how.split(" ")[0].rstrip(","), **_bounds(more.number)}
    yield {"place": held[0].name, "series": "none", "mean": 0.0, "low": math.nan, "high": math.nan, "n": 0}


def _bounds(number: Number) -> dict[str, float]:
    return {"mean": number.value, "low": number.low, "high": number.high, "n": number.n}


# --- measured columns ------------------------------------------------------------------------------------------------


def sections_of(found: Laid, held: Sequence[Side]) -> Iterator[Section]:
    """The figures of a measured column."""
    if not found.groups:
        return
    title, said = found.measured.title, caption(found, held)
    if len(found.measured.along) == 2:
        yield from _maps(found, held, title, said)
    else:
        yield Section(title, panels([p for group in found.groups for p in _panels(group, found, held)]), said)


def caption(found: Laid, held: Sequence[Side]) -> str:
    """What is drawn, of how many items, how the differences were taken, and at which points."""
    first = found.groups[0].points[0]
    numbers = ", ".join(f"{side.name} {number.n}" for side, number in zip(held, first.numbers, strict=True))
    how = {"paired" if more.pairs else "unpaired" for more in all_differences(found)}
    taken = {
        frozenset({"paired"}): "paired item by item",
        frozenset({"unpaired"}): "unpaired: the runs do not have the same items",
    }
    points = (
        "points of their own"
        if all(group.exact for group in found.groups)
        else f"the points of {held[0].name}, others interpolated"
    )
    return (
        f"Bands: 95 % intervals over items (n: {numbers}). Differences to {held[0].name}: "
        f"{taken.get(frozenset(how), 'paired where items are the same, else unpaired')}. All at {points}."
    )


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
    yield Panel(f"{named}each run", curves, along, xlabel, found.measured.title.lower(), ticks)
    apart = [
        Curve(f"{side.name} less {held[0].name}", line([p.differences[i].number for p in group.points]))
        for i, side in enumerate(held[1:])
    ]  # fmt: skip
    none = pd.DataFrame({along: [at[0], at[-1]], "mean": [0.0, 0.0]})
    yield Panel(f"{named}difference", [*apart, Curve("none", none, ":")], along, xlabel, "difference", ticks)


def _maps(found: Laid, held: Sequence[Side], title: str, said: str) -> Iterator[Section]:
    label = found.measured.title.lower()
    step, depth = f"step of {held[0].name}", "relative depth"
    own, apart, cells, apart_cells = [], [], [], []
    for group in found.groups:
        part = f"{group.name}: " if group.name else ""
        for i, side in enumerate(held):
            own.append((f"{part}{side.name}", _matrix(group, [point.numbers[i].value for point in group.points])))
            cells += [_cell(f"{part}{side.name}", p.step, p.depth, step, depth, p.numbers[i]) for p in group.points]
        for i, side in enumerate(held[1:]):
            name = f"{part}{side.name} less {held[0].name}"
            apart.append((name, _matrix(group, [point.differences[i].number.value for point in group.points])))
            apart_cells += [
                _cell(name, p.step, p.depth, step, depth, p.differences[i].number) | {"taken": p.differences[i].how}
                for p in group.points
            ]  # fmt: skip
    sigmas = ", ".join(
        f"{point.step:.0f}: {point.sigma:.2f}"
        for point in found.groups[0].points
        if point.depth == found.groups[0].points[0].depth
    )
    said = f"{said} Sigma of the steps: {sigmas}."
    yield Section(title, matrix_maps(own, step, depth, label).explored(pd.DataFrame(cells)), said)
    yield Section(
        f"{title}: difference",
        matrix_maps(apart, step, depth, "difference", diverging=True).explored(pd.DataFrame(apart_cells)),
        said,
    )


def _matrix(group: Group, values: Sequence[float]) -> pd.DataFrame:
    rows = [{"depth": f"{p.depth:.2f}", "step": int(p.step), "value": v} for p, v in zip(group.points, values, strict=True)]
    return pd.DataFrame(rows).pivot_table("value", "depth", "step", dropna=False, sort=False)


def _cell(name: str, step: float, depth: float, x: str, y: str, number: Number) -> dict[str, object]:
    return {
        "map": name, y: f"{depth:.2f}", x: int(step), VALUE: number.value, "low": number.low, "high": number.high, "n": number.n,
    }  # fmt: skip
