"""The videos of a patching report: both runs of every pair, and the patch that moved the answer most."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.patching.summary import main_rows
from cos_interp.tasks.video import encode_mp4

Clip = tuple[str, str, bytes]  # name, caption, mp4


def clips(result: AnalysisResult, store: RunStore) -> dict[str, list[Clip]]:
    """For every pair: corrupt, clean, and the strongest patched video."""
    out: dict[str, list[Clip]] = {}
    for pair in result.facts["pairs"]:
        key = pair["pair"]
        frames = store.tensors(f"{key}-pair")
        out[key] = [
            (side, f"“{pair[side]['prompt']}”", encode_mp4(frames[f"{side}_frames"].numpy())) for side in ("corrupt", "clean")
        ]
        strongest = strongest_row(result.rows[result.rows.pair == key], result.config.direction)
        if strongest is not None:
            step = int(strongest.step)
            place = f"layer {strongest.layer}" if pd.notna(strongest.layer) else "the latent"
            text = f"{strongest.site}, {place}, step {step}, {strongest.group}: effect {strongest.effect:.2f}, "
            text += f"answer: {strongest.outcome}"
            video = _decoded(result, store, key, step, strongest)
            if video is not None:
                out[key].append(("patched", text, encode_mp4(video)))
    return out


def strongest_row(rows: pd.DataFrame, direction: str) -> Any:
    """The single-group patch with the largest effect (smallest when noising); flips to the donor's answer come first."""
    rows = main_rows(rows)
    rows = rows[rows.group != "all"] if (rows.group != "all").any() else rows
    if rows.empty:
        return None
    sign = 1 if direction == "denoising" else -1
    return rows.assign(order=sign * rows.effect + 10 * (rows.outcome == "donor")).sort_values("order").iloc[-1]


def _decoded(result: AnalysisResult, store: RunStore, key: str, step: int, row: pd.Series) -> np.ndarray | None:
    unit = f"{key}-step-{step:03d}"
    rows, _ = store.unit(unit)
    fields = ("donor", "site", "layer", "head", "group", "frame")
    wanted = {f: (None if pd.isna(row[f]) else row[f]) for f in fields}
    place = next(i for i, r in enumerate(rows) if all(r[f] == wanted[f] for f in fields))
    decoded = store.tensors(unit).get("frames")
    return None if decoded is None else decoded[place].to(torch.uint8).numpy()
