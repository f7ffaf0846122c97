"""Following an object through the video by matching queries to keys (DiffTrack, arXiv 2506.17220; notes B5).

The queries of the object's tokens in the first latent frame are compared with the keys of every later frame; the best
matching token is where the model is taken to see the object. The control is what the queries of every other cell find: a key that
draws all queries is at the object, too, and no query follows it. Queries and keys are those after rotary embedding, so that
a model that looks at its own place whatever is there would follow an object that stays: only frames in which it has moved count.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import DIFFERENCE, Mean
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.attention_maths import Grid, softmax_scores
from cos_interp.analyses.kit.halves import chosen
from cos_interp.analyses.kit.tracks import Cell, Track, cell_at, pixel_frames, tokens_of
from cos_interp.tasks import grid

FORWARD, BACKWARD = ("hit", "hit_other"), ("hit_back", "back_other")
CELLS = [(row, col) for row in range(grid.ROWS) for col in range(grid.COLS)]


@cache
def cells_with_tokens(shape: tuple[int, int]) -> tuple[list[Cell], Tensor]:
    """The cells that have tokens in a frame of so many rows and columns, and how their tokens are averaged, ``[cell, token]``."""
    inside = {cell: tokens_of([cell], 0, (1, *shape)) for cell in CELLS}
    found = {cell: there.float() / there.sum() for cell, there in inside.items() if there.any()}
    return list(found), torch.stack(list(found.values()))


def matches(q: Tensor, k: Tensor, shape: Grid) -> dict[Cell, Cell]:
    """For every cell the one that its queries match best: the largest ``softmax(q k^T / sqrt d)`` over the tokens of one frame,
    averaged over heads and over the cell's tokens. q, k ``[head, token of the frame, d]``. Cells without a token are left out."""
    cells, averaged = cells_with_tokens(shape[1:])
    best = (averaged @ softmax_scores(q, k).mean(0).cpu()).argmax(1).tolist()
    return {cell: cell_at(token, shape) for cell, token in zip(cells, best, strict=True)}


def tracking_rows(track: Track, q: Tensor, k: Tensor, shape: Grid) -> list[Row]:
    """One row a later latent frame, q, k ``[head, token, d]``. A cell counts as right when the object is there in one of the
    frame's pixel frames.

    ``hit``: matching the first frame's query finds a right cell; ``hit_other``: share of the other cells whose queries find one;
    ``hit_back``: the query of the object's cell in that frame finds its cell in the first frame; ``back_other``: share of the
    other cells that do; ``static``: staying at the first frame's cell is right; ``chance``: share of right cells.
    """
    keys, queries = (t.unflatten(1, (shape[0], -1)) for t in (k, q))
    rows = []
    for frame in range(1, shape[0]):
        right = {track.cells[p] for p in pixel_frames(frame, shape[0])}
        there = track.cells[pixel_frames(frame, shape[0])[-1]]
        on = {cell: found in right for cell, found in matches(queries[:, 0], keys[:, frame], shape).items()}
        back = {cell: found == track.cells[0] for cell, found in matches(queries[:, frame], keys[:, 0], shape).items()}
        hit, hit_other = _split(on, track.cells[0])
        hit_back, back_other = _split(back, there)
        rows.append({
            "kind": "tracking", "followed": track.name, "frame": frame, "hit": hit, "hit_other": hit_other, "hit_back": hit_back,
            "back_other": back_other, "static": float(track.cells[0] in right), "chance": len(right) / len(CELLS),
        })  # fmt: skip
    return rows


def _split(found: dict[Cell, bool], own: Cell) -> tuple[float, float]:
    """What one cell finds, and the mean of all others; NaN for a cell without a token."""
    others = [hit for cell, hit in found.items() if cell != own]
    return float(found.get(own, np.nan)), float(np.mean(others)) if others else float("nan")


def moved(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows in which the object is no longer where it was: there the static baseline is 0."""
    return rows[rows.static == 0]


def accuracy_map(rows: pd.DataFrame, value: str = "hit") -> pd.DataFrame:
    """Layer x step, items weighted equally."""
    by_problem = rows.groupby(["layer", "step", "problem"])[value].mean()
    table = by_problem.groupby(["layer", "step"]).mean().unstack()
    return table.rename(index=int, columns=int)


def findings(result: AnalysisResult, rows: pd.DataFrame) -> list[Finding]:
    """Does matching follow moved objects, and lead back to where they were, more than that of other cells? In runs that are
    right: of others it is not known where the object is."""
    places = moved(rows[rows.run_status == "solved"])
    texts = ("names the right cell of a moved object", "leads back from a moved object to its first cell")
    keys = ("memory.tracking", "memory.tracking-back")
    return [_finding(result, places, *said) for said in zip(keys, (FORWARD, BACKWARD), texts, strict=True)]


def _finding(result: AnalysisResult, rows: pd.DataFrame, key: str, values: tuple[str, str], text: str) -> Finding:
    own, other = values
    (layer, step), tested = chosen(rows.assign(more=rows[own] - rows[other]), "more")
    each = tested.groupby("problem")[[own, other, "more"]].mean()
    hit, others = (Mean(each[name].to_numpy(float), bounds=(0, 1)).number() for name in values)
    where = f"layer {layer}, step {step}, best on the other half of items," if layer >= 0 else "matching"
    said = f"{where} {text} in {hit} of the frames; more than the queries of other cells, by"
    return result.judge(key, Mean(each.more.astype(float), bounds=DIFFERENCE), said, others)
