"""Following an object through the video by matching queries to keys (DiffTrack, arXiv 2506.17220; notes B5).

The queries of the object's tokens in the first latent frame are compared with the keys of every later frame; the best
matching token is where the model is taken to see the object. Queries and keys are those after rotary embedding, so that
a model that looks at its own place whatever is there would follow an object that stays: hence the static baseline.
"""

from __future__ import annotations

import pandas as pd
from torch import Tensor

from analyses.attention_maths import Grid
from analyses.findings import Finding, Number, decide
from analyses.statistics import mean_number, paired
from analyses.store import Row
from analyses.tracks import Cell, Track, cell_at, pixel_frames, tokens_of
from tasks import grid


def match(q: Tensor, k: Tensor) -> Tensor:
    """Matching of one object with the tokens of one frame, ``[token]``: ``softmax(q k^T / sqrt d)`` over those tokens,
    averaged over heads and over the object's tokens. q ``[head, object token, d]``, k ``[head, token, d]``."""
    return (q.float() @ k.float().transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1).mean((0, 1))


def predicted_cells(q: Tensor, k: Tensor, start: Tensor, shape: Grid) -> list[Cell]:
    """Best matching cell in every latent frame. q, k ``[head, token, d]`` of all tokens; ``start`` bool ``[token]``."""
    per_frame = k.unflatten(1, (shape[0], -1))
    object_q = q[:, start]
    return [cell_at(int(match(object_q, per_frame[:, f]).argmax()), shape) for f in range(shape[0])]


def tracking_rows(track: Track, q: Tensor, k: Tensor, shape: Grid) -> list[Row]:
    """One row a later latent frame. A cell counts as right when the object is there in one of the frame's pixel frames.

    ``hit``: by matching; ``static``: by staying at the first frame's cell; ``chance``: by drawing a cell.
    """
    start = tokens_of(track.cells[:1], 0, shape)
    found = predicted_cells(q, k, start.to(q.device), shape)
    rows = []
    for frame in range(1, shape[0]):
        right = {track.cells[p] for p in pixel_frames(frame, shape[0])}
        rows.append({
            "kind": "tracking", "followed": track.name, "frame": frame, "hit": float(found[frame] in right),
            "static": float(track.cells[0] in right), "chance": len(right) / (grid.ROWS * grid.COLS),
        })  # fmt: skip
    return rows


def moved(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows in which the object is no longer where it was: there the static baseline is 0."""
    return rows[rows.static == 0]


def accuracy_map(rows: pd.DataFrame, value: str = "hit") -> pd.DataFrame:
    """Layer x step, items weighted equally."""
    by_problem = rows.groupby(["layer", "step", "problem"])[value].mean()
    return by_problem.groupby(["layer", "step"]).mean().unstack()


def held_out_choice(rows: pd.DataFrame) -> tuple[tuple[int, int], pd.DataFrame]:
    """The (layer, step) that tracks best on every second item, and the rows of the other items there.

    Choosing and testing on the same items would find a good place in pure noise.
    """
    names = sorted(rows.problem.unique())
    table = accuracy_map(rows[rows.problem.isin(names[::2])]).stack()
    layer, step = table.idxmax()
    return (int(layer), int(step)), rows[rows.problem.isin(names[1::2]) & (rows.layer == layer) & (rows.step == step)]


def finding(rows: pd.DataFrame) -> Finding:
    """Does matching follow moving objects better than chance, at a place chosen on other items?"""
    places = moved(rows)
    claim, rule = (
        "Query-key matching follows an object through the frames (DiffTrack, B5)",
        "(layer, step) chosen on half of the items; on the other half the interval of hit minus chance lies above 0",
    )
    if places.problem.nunique() < 4:
        nothing = Number(float("nan"))
        return Finding(claim, "not testable", "too few items in which an object moves", nothing, "chance", nothing, rule)
    (layer, step), tested = held_out_choice(places)
    means = tested.groupby("problem")[["hit", "chance"]].mean()
    gain = paired(means.hit, means.chance)
    statement = (
        f"layer {layer}, step {step} names the right cell of a moved object in {mean_number(means.hit.to_numpy(float))} of the "
        "frames (staying put: 0), above chance by"
    )
    return Finding(claim, decide(gain.low, gain.high), statement, gain, "chance", mean_number(means.chance.to_numpy(float)), rule)
