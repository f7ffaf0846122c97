"""One measured column of several runs, at the points of the first: each run's mean, and what every other has more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd

from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.measured import Measured
from cos_interp.analyses.driver.statistics import effect, mean_number
from cos_interp.analyses.kit.verdicts import outcomes
from cos_interp.analyses.reporting.aligned import Cube, cube
from cos_interp.analyses.reporting.differences import Difference, Items, between
from cos_interp.analyses.reporting.sides import Side

LAYER, EFFECT = "layer", "effect"


@dataclass(frozen=True)
class Point:
    """One point of the first run: its step and sigma, its layer's relative depth (NaN on an axis that the column does not have),
    each run's number, and what each but the first has more."""

    step: float
    sigma: float
    depth: float
    numbers: tuple[Number, ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Group:
    """The points of one part of a column. ``exact``: whether all runs have the first one's points, so that nothing is
    interpolated."""

    name: str
    points: tuple[Point, ...]
    exact: bool


@dataclass(frozen=True)
class Laid:
    """A column of several runs. ``lacking``: why a run is not in it, in words."""

    measured: Measured
    groups: tuple[Group, ...] = ()
    lacking: tuple[str, ...] = field(default=())


def laid(measured: Measured, sides: Sequence[Side]) -> Laid:
    """A column of all runs that have it; no groups where the first or all others do not."""
    tables = [table(side, measured) for side in sides]
    lacking = tuple(f"{side.name}: {found}" for side, found in zip(sides, tables, strict=True) if isinstance(found, str))
    if lacking:
        return Laid(measured, lacking=lacking)
    held = [found for found in tables if not isinstance(found, str)]
    names = [name for name in dict.fromkeys(held[0]["group"]) if all((found["group"] == name).any() for found in held[1:])]
    groups = [_group(name, [cube(found[found["group"] == name]) for found in held], sides) for name in names]
    return Laid(measured, tuple(groups), () if groups else ("the runs have no part of it in common",))


def table(side: Side, measured: Measured) -> pd.DataFrame | str:
    """Columns ``group, item, sigma, depth, value`` of a run; why there are none, in words."""
    rows, item = side.run.rows, side.item
    needed = {measured.value, *measured.along, *measured.where, *measured.by} | ({"step"} if measured.final else set())
    if item is None or (missing := sorted(needed - set(rows.columns))):
        return f"it has no column {missing[0]}" if item is not None else "its rows name no items"
    for column, value in measured.where.items():
        rows = rows[rows[column].isna() if value is None else rows[column] == value]
    rows = rows[rows[measured.value].notna()]
    rows = rows[rows.step == rows.step.max()] if measured.final else rows
    if rows.empty:
        return "nothing of the kind was measured"
    if LAYER in measured.along and side.layers is None:
        return "it does not say how many layers its model has"
    return pd.DataFrame({
        "group": _named(rows, measured), "item": rows[item].astype(str), "sigma": _sigma(side, rows, measured),
        "depth": rows[LAYER].astype(float) / side.layers if LAYER in measured.along and side.layers else 0.0,
        "value": _as_it_counts(rows, measured),
    }).dropna()  # fmt: skip


def _as_it_counts(rows: pd.DataFrame, measured: Measured) -> pd.Series:
    value = rows[measured.value]
    if measured.counts is not None:
        return outcomes(rows, measured.counts) if measured.value == "status" else (value == measured.counts).astype(float)
    return effect(value) if measured.value == EFFECT else value.astype(float)


def _named(rows: pd.DataFrame, measured: Measured) -> pd.Series:
    """The part of each row, in words; parts by a column that has one value go without it."""
    columns = [name for name in measured.by if rows[name].nunique(dropna=False) > 1]
    words = pd.Series("", rows.index)
    for name in columns:
        told = [_of_part(name, one) for one in rows[name]]
        words = words.where(words == "", words + ", ").where([bool(one) for one in told], words) + told
    return words


def _of_part(name: str, value: object) -> str:
    """A value of a column in words: a number with what it is of, a name by itself, whether something is so; nothing where there
    is none."""
    if value is None or value is pd.NA or value != value:
        return ""
    if isinstance(value, str):
        return value.replace("_", " ")
    if isinstance(value, bool | np.bool_):
        return f"{'' if value else 'not '}{name.replace('_', ' ')}"
    return f"{name.replace('_', ' ')} {value:g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"


def _sigma(side: Side, rows: pd.DataFrame, measured: Measured) -> pd.Series | float:
    steps = [name for name in measured.along if name != LAYER]
    return rows[steps[0]].map(side.sigmas) if steps else 0.0


def _group(name: str, cubes: Sequence[Cube], sides: Sequence[Side]) -> Group:
    sigmas, depths = cubes[0].sigmas, cubes[0].depths
    steps = {sigma: step for step, sigma in sides[0].sigmas.items()}
    at = [found.at(sigmas, depths) for found in cubes]
    points = []
    for i, sigma in enumerate(sigmas):
        for j, depth in enumerate(depths):
            items = [_items(found, values[:, i, j]) for found, values in zip(cubes, at, strict=True)]
            points.append(_point(steps.get(float(sigma), np.nan), sigma, depth, items, sides))
    return Group(name, tuple(points), all(found.fits(sigmas, depths) for found in cubes))


def _items(found: Cube, values: np.ndarray) -> dict[str, float]:
    return {item: float(value) for item, value in zip(found.items, values, strict=True) if not np.isnan(value)}


def _point(step: float, sigma: float, depth: float, items: Sequence[Items], sides: Sequence[Side]) -> Point:
    numbers = tuple(mean_number(list(found.values())) for found in items)
    differences = tuple(
        between(numbers[0], number, items[0], found, partial(same, sides[0], side))
        for number, found, side in zip(numbers[1:], items[1:], sides[1:], strict=True)
    )  # fmt: skip
    return Point(float(step), float(sigma), float(depth), numbers, differences)


def same(first: Side, second: Side, item: str) -> bool:
    """Whether two runs mean the same thing by an item's name."""
    return first.key(item) is not None and first.key(item) == second.key(item)


def all_differences(found: Laid) -> Iterator[Difference]:
    """Every difference of a column."""
    for group in found.groups:
        for point in group.points:
            yield from point.differences
