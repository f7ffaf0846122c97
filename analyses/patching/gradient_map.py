"""A gradient map of a pair: every cell at first order by one sweep back, and the exact cells that it is held against.

The exact cells are a random sample, by which the map is measured, and the map's own largest, which is what one would read off it.
They are chosen when the map is there, and kept with it, so that a run that is continued finishes the same ones.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from cos_interp.analyses.driver.experiment import Unit
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.kit.grid import EVERYWHERE, SELF, Cell
from cos_interp.analyses.kit.seeds import seed_for
from cos_interp.analyses.patching import MapFacts
from cos_interp.analyses.patching.cells import sites_of
from cos_interp.analyses.patching.pair_grid import PairGrid
from cos_interp.analyses.patching.pieces import Piece
from cos_interp.interp.gradient.attribution import attribute
from cos_interp.interp.gradient.target import Metric

PLACE = ["site", "step", "layer", "head", "group", "frame"]
SAMPLE, TOP, BOTH = "sample", "top", "both"  # why a cell was finished exactly


def held(made: PairGrid, store: RunStore, piece: Piece) -> PairGrid:
    """The grid of a pair with the cells alone that its map is held against."""
    return replace(made, only=exact_cells(store.finished(piece.map_unit)[0]))


def mapped(made: PairGrid) -> Unit:
    """The map of a pair: a row a cell with its first-order change of the effect, and which cells are to be finished."""
    grid, config = made.grid, made.config
    sites = sites_of(config, grid.model)  # without the control of an exact grid that puts in the whole x_t
    every = (cell for step in made.steps for cell in made.cells(step))
    cells = [cell for cell in every if cell.donor == grid.donor_name and cell.site in sites]
    own = [replace(cell, donor=SELF) for cell in cells[:1]]  # whose change must be exactly 0
    before = grid.model.block_calls
    changes = attribute(grid.model, grid.target.recording, [grid.patch(cell) for cell in [*cells, *own]], effect(made))
    ran = grid.model.block_calls - before
    rows = [_row(made, cell, change) for cell, change in zip([*cells, *own], changes, strict=True)]
    seed = seed_for("exact cells", *config.about, made.name)
    picked = chosen(pd.DataFrame(rows), seed, config.exact_cells, config.top_cells)
    facts = MapFacts(cells=len(cells), block_calls=ran)
    return Unit([row | {"chosen": why} for row, why in zip(rows, picked, strict=True)], facts=facts)


def effect(made: PairGrid) -> Metric:
    """The effect of a patch on final latents, as a metric that can be differentiated: see ``statistics.projection``."""
    corrupt, clean = (side.recording.run.latents.double() for side in (made.pair.corrupt, made.pair.clean))
    along = (clean - corrupt) / (clean - corrupt).square().sum()

    def along_the_pair(latents: Tensor) -> Tensor:
        return ((latents.double() - corrupt) * along).sum()

    return along_the_pair


def _row(made: PairGrid, cell: Cell, change: float) -> Row:
    return {
        "pair": made.name, "pair_kind": made.pair.kind, "span": made.grid.span, "donor": cell.donor, "site": cell.site,
        "step": cell.step, "layer": cell.layer, "head": cell.head, "group": cell.group, "frame": cell.frame,
        "sigma": made.grid.target.recording.run.sigmas[cell.step], "share": made.shares[cell.group], "estimate": change,
    }  # fmt: skip


def chosen(rows: pd.DataFrame, seed: int, sample: int, top: int) -> list[str | None]:
    """Of each row of a map why it is to be finished exactly, None where it is not: of each site so many at random of named tokens
    and of all tokens, and of the whole map those of the largest changes in either direction. The run as its own donor is
    finished, too."""
    draw, why = np.random.default_rng(seed), pd.Series(None, index=rows.index, dtype=object)
    main = rows[rows.donor != SELF]
    for _, part in main.groupby(["site", main.group == EVERYWHERE], sort=False):
        why[part.index[draw.permutation(len(part))[:sample]]] = SAMPLE
    largest = main.estimate.abs().sort_values(ascending=False, kind="stable").index[:top]
    why[largest] = [BOTH if why[place] == SAMPLE else TOP for place in largest]
    why[rows.index[rows.donor == SELF]] = SELF
    return [None if pd.isna(one) else str(one) for one in why]


def exact_cells(rows: list[Row]) -> dict[int, list[Cell]]:
    """The cells of a map that are to be finished, by step."""
    found: dict[int, list[Cell]] = {}
    for row in rows:
        if row.get("chosen") is not None:
            layer, head, frame = (_whole(row[name]) for name in ("layer", "head", "frame"))
            cell = Cell(str(row["donor"]), str(row["site"]), int(row["step"]), layer, head, str(row["group"]), frame)
            found.setdefault(cell.step, []).append(cell)
    return found


def _whole(value: Any) -> int | None:
    return None if value is None or pd.isna(value) else int(value)
