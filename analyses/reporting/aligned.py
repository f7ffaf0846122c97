"""Measured columns of two models on common points: noise levels for steps, relative depth for layers. Pure maths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

NEAR = 1e-4  # points that differ by less are the same


@dataclass(frozen=True)
class Cube:
    """Values ``[item, sigma, depth]`` of one column, NaN where there is none; an axis that it does not have is of one point."""

    items: tuple[str, ...]
    sigmas: np.ndarray
    depths: np.ndarray
    values: np.ndarray

    def at(self, sigmas: np.ndarray, depths: np.ndarray) -> np.ndarray:
        """The values at other points, ``[item, sigma, depth]``: see :func:`onto`."""
        return onto(onto(self.values, self.sigmas, sigmas, 1), self.depths, depths, 2)

    def fits(self, sigmas: np.ndarray, depths: np.ndarray) -> bool:
        """Whether these are its own points, so that nothing is interpolated."""
        mine = ((self.sigmas, sigmas), (self.depths, depths))
        return all(len(a) == len(b) and bool((np.abs(a - b) < NEAR).all()) for a, b in mine)


def cube(table: pd.DataFrame) -> Cube:
    """From a table with columns ``item, sigma, depth, value``; values of one item and point are averaged. Sigmas fall."""
    mean = table.groupby(["item", "sigma", "depth"], sort=False).value.mean().reset_index()
    items = tuple(dict.fromkeys(mean["item"]))
    sigmas, depths = np.sort(mean.sigma.unique())[::-1].astype(float), np.sort(mean.depth.unique()).astype(float)
    values = np.full((len(items), len(sigmas), len(depths)), np.nan)
    places = [{point: at for at, point in enumerate(points)} for points in (items, sigmas, depths)]
    for item, sigma, depth, value in mean[["item", "sigma", "depth", "value"]].itertuples(index=False):
        values[places[0][item], places[1][sigma], places[2][depth]] = value
    return Cube(items, sigmas, depths, values)


def onto(values: np.ndarray, own: np.ndarray, asked: np.ndarray, axis: int) -> np.ndarray:
    """Values along an axis at other points: as they are where a point is one of their own, linear between two of their own, and
    NaN outside.

    >>> onto(np.array([1.0, 3.0]), np.array([0.0, 1.0]), np.array([0.0, 0.5, 1.0, 1.5]), 0)
    array([ 1.,  2.,  3., nan])
    """
    return np.apply_along_axis(_line, axis, values, own, asked)


def _line(values: np.ndarray, own: np.ndarray, asked: np.ndarray) -> np.ndarray:
    known = ~np.isnan(values)
    if not known.any():
        return np.full(len(asked), np.nan)
    order = np.argsort(own[known])
    points, held = own[known][order], values[known][order]
    inside = (asked > points[0] - NEAR) & (asked < points[-1] + NEAR)
    return np.where(inside, np.interp(asked, points, held), np.nan)
