"""The videos of a patching report: both runs of every pair, and the patch that moved the answer most."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.pages import Clip
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.grid import EVERYWHERE
from cos_interp.analyses.patching import PairFacts
from cos_interp.analyses.patching.pieces import Piece
from cos_interp.analyses.patching.summary import main_rows


def clips(result: AnalysisResult, store: RunStore, pairs: list[PairFacts], noising: bool) -> list[Clip]:
    """For every pair: corrupt, clean, and the strongest patched video."""
    out = []
    for pair in pairs:
        piece = Piece(pair.kind, int(pair.pair.rsplit("-", 1)[1]))
        frames = store.tensors(piece.unit())
        out += [
            Clip(f"{piece.name} {name}", f"“{side.prompt}”", frames[f"{name}_frames"].numpy())
            for name, side in (("corrupt", pair.corrupt), ("clean", pair.clean))
        ]
        strongest = strongest_row(result.rows[result.rows.pair == piece.name], noising)
        if strongest is not None:
            out.append(_patched(store, piece, strongest))
    return out


def strongest_row(rows: pd.DataFrame, noising: bool) -> pd.Series | None:
    """The single-group patch with the largest effect (smallest when noising); flips to the donor's answer come first."""
    rows = main_rows(rows[rows.outcome.notna()])
    rows = rows[rows.group != EVERYWHERE] if (rows.group != EVERYWHERE).any() else rows
    if rows.empty:
        return None
    sign = -1 if noising else 1
    return rows.assign(order=sign * rows.effect + 10 * (rows.outcome == "donor")).sort_values("order").iloc[-1]


def _patched(store: RunStore, piece: Piece, row: pd.Series) -> Clip:
    step = int(row.step)
    place = f"layer {row.layer}" if pd.notna(row.layer) else "the latent"
    text = f"{row.site}, {place}, step {step}, {row.group}: effect {row.effect:.2f}, answer: {row.outcome}"
    return Clip(f"{piece.name} patched", text, _decoded(store, piece.unit(step), row))


def _decoded(store: RunStore, unit: str, row: pd.Series) -> np.ndarray:
    rows, _ = store.finished(unit)
    fields = ("donor", "site", "layer", "head", "group", "frame")
    wanted = {f: (None if pd.isna(row[f]) else row[f]) for f in fields}
    place = next(i for i, r in enumerate(rows) if all(r[f] == wanted[f] for f in fields))
    return store.tensors(unit)["frames"][place].to(torch.uint8).numpy()
