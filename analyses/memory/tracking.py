"""Following an object through the video by matching queries to keys (DiffTrack, arXiv 2506.17220; notes B5).

The queries of the object's tokens in the first latent frame are compared with the keys of every later frame; the best
matching token is where the model is taken to see the object. Queries and keys are those after rotary embedding, so that
a model that looks at its own place whatever is there would follow an object that stays: hence the static baseline.
"""

from __future__ import annotations

import pandas as pd
from torch import Tensor

from cos_interp.analyses.driver.findings import Finding, Number, decide
from cos_interp.analyses.driver.statistics import mean_number, paired
from cos_interp.analyses.driver.store import Row
from cos_interp.analyses.kit.attention_maths import Grid
from cos_interp.analyses.kit.tracks import Cell, Track, cell_at, pixel_frames, tokens_of
from cos_interp.tasks import grid

CLAIM = "Query-key matching follows an object through the frames (DiffTrack, B5)"
RULE = "(layer, step) chosen on half of the items; on the other half hit minus chance has its interval above 0"


def match(q: Tensor, k: Tensor) -> Tensor:
    """Matching of one object with the tokens of one frame, ``[token]``: ``softmax(q k^T / sqrt d)`` over those tokens,
    averaged over heads and over the object's tokens. q ``[head, object token, d]``, k ``[head, token, d]``."""
    return (q.float() @ k.float().transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1).mean((0, 1))


def predicted_cells(q: Tensor, k: Tensor, start: Tensor, shape: Grid) -> list[Cell]:
    """Best matching cell in every latent frame. q, k ``[head, token, d]`` of all tokens; ``start`` bool ``[token]``."""
    per_frame = k.unflatten(1, (shape[0], -1))
    object_q = q[:, start]
    return [cell_at(int(match(object_q, per_frame[:, f]).argmax()), shape) for f in range(shape[0])]


def origin_cells(q: Tensor, k: Tensor, track: Track, shape: Grid) -> list[Cell]:
    """The other way round: for the object's true cell in every latent frame, its best match in the first frame."""
    first = k.unflatten(1, (shape[0], -1))[:, 0]
    out = []
    for frame in range(shape[0]):
        there = tokens_of([track.cells[pixel_frames(frame, shape[0])[-1]]], frame, shape)
        out.append(cell_at(int(match(q[:, there.to(q.device)], first).argmax()), shape))
    return out


def tracking_rows(track: Track, q: Tensor, k: Tensor, shape: Grid) -> list[Row]:
    """One row a later latent frame. A cell counts as right when the object is there in one of the frame's pixel frames.

    ``hit``: by matching the first frame's query; ``hit_back``: matching back to the first frame; ``static``: by staying at
    the first frame's cell; ``chance``: by drawing a cell.
    """
    start = tokens_of(track.cells[:1], 0, shape)
    found, origins = predicted_cells(q, k, start.to(q.device), shape), origin_cells(q, k, track, shape)
    rows = []
    for frame in range(1, shape[0]):
        right = {track.cells[p] for p in pixel_frames(frame, shape[0])}
        rows.append({
            "kind": "tracking", "followed": track.name, "frame": frame, "hit": float(found[frame] in right),
            "hit_back": float(origins[frame] == track.cells[0]), "static": float(track.cells[0] in right),
            "chance": len(right) / (grid.ROWS * grid.COLS), "chance_back": 1 / (grid.ROWS * grid.COLS),
        })  # fmt: skip
    return rows


def moved(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows in which the object is no longer where it was: there the static baseline is 0."""
    return rows[rows.static == 0]


def accuracy_map(rows: pd.DataFrame, value: str = "hit") -> pd.DataFrame:
    """Layer x step, items weighted equally."""
    by_problem = rows.groupby(["layer", "step", "problem"])[value].mean()
    table = by_problem.groupby(["layer", "step"]).mean().unstack()
    return table.rename(index=int, columns=int)


def held_out_choice(rows: pd.DataFrame, value: str = "hit") -> tuple[tuple[int, int], pd.DataFrame]:
    """The (layer, step) that tracks best on every second item, and the rows of the other items there.

    Choosing and testing on the same items would find a good place in pure noise.
    """
    names = sorted(rows.problem.unique())
    layer, step = accuracy_map(rows[rows.problem.isin(names[::2])], value).stack().idxmax()
    return (int(layer), int(step)), rows[rows.problem.isin(names[1::2]) & (rows.layer == layer) & (rows.step == step)]


def finding(rows: pd.DataFrame, value: str = "hit") -> Finding:
    """Does matching follow moved objects better than chance, at a place chosen on other items? ``hit`` or ``hit_back``."""
    back = value == "hit_back"
    claim = "Later frames match back to where their object started (B5, reversed)" if back else CLAIM
    places = moved(rows)
    if places.problem.nunique() < 4:
        nothing = Number(float("nan"))
        return Finding(claim, "not testable", "too few items in which an object moves", nothing, "chance", nothing, RULE)
    (layer, step), tested = held_out_choice(places, value)
    chance = "chance_back" if back else "chance"
    means = tested.groupby("problem")[[value, chance]].mean()
    gain, hit = paired(means[value], means[chance]), mean_number(means[value].to_numpy(float))
    where = "the object's first cell" if back else "the right cell of a moved object"
    return Finding(
        claim, "undecided" if gain.high <= 0 else decide(gain.low, gain.high),
        f"layer {layer}, step {step} names {where} in {hit} of the frames, above chance by",
        gain, "chance", mean_number(means[chance].to_numpy(float)), RULE,
    )  # fmt: skip
