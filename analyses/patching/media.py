"""The videos of a patching report: both runs of every pair, and the patches whose videos were kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.pages import Reel, Shown
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.patching import PairFacts, StepFacts
from cos_interp.analyses.patching.pieces import Piece

TEXT = "The run that receives, the run that gives, and of every step the patch that moved the answer most."


def reels(result: AnalysisResult, store: RunStore, pairs: list[PairFacts]) -> list[Reel]:
    """For every pair: the run that receives, the one that gives, and what was kept of the patches. Pairs with a flip first."""
    noising = result.config.direction == "noising"
    made = [(_reel(result, store, pair, noising), pair) for pair in pairs]
    return [reel for reel, _ in sorted(made, key=lambda m: not any(row.told.get("reads") == "donor" for row in m[0].rows))]


def _reel(result: AnalysisResult, store: RunStore, pair: PairFacts, noising: bool) -> Reel:
    piece = Piece(pair.kind, int(pair.pair.rsplit("-", 1)[1]))
    frames = store.tensors(piece.unit())
    sides = [("corrupt", pair.corrupt), ("clean", pair.clean)][:: -1 if noising else 1]
    clips = [frames[f"{name}_frames"].numpy() for name, _ in sides]
    does = ("receives", "gives")
    rows = [Shown(f"{what}: {name}", {"prompt": side.prompt}) for what, (name, side) in zip(does, sides, strict=True)]
    for row in _kept(result, store, piece).itertuples():
        clips.append(store.tensors(piece.unit(int(row.step)))["shown"].numpy())
        rows.append(_patched(row))
    return Reel(piece.name, TEXT, np.stack(clips), rows)


def _kept(result: AnalysisResult, store: RunStore, piece: Piece) -> pd.DataFrame:
    """The rows of a pair whose videos were kept, one a step."""
    units = {piece.unit(int(step)) for step in result.rows[result.rows.pair == piece.name].step}
    shown = {unit: facts.shown for unit, facts in result.units_of(StepFacts).items() if unit in units}
    rows = [store.finished(unit)[0][place] for unit, place in sorted(shown.items()) if place is not None]
    return pd.DataFrame(rows, columns=result.rows.columns)


def _patched(row: Any) -> Shown:
    """What is said of a kept patch: where it is, how far it moved, what the verifier reads and how much of each answer shows."""
    named = row._asdict()
    layer = int(named["layer"]) if pd.notna(named["layer"]) else ""
    told = {
        "at": f"{named['site']} {layer}, {named['group']}", "effect": named["effect"], "reads": named["outcome"],
        "donor's answer": named["donor_shown"], "its own": named["target_shown"],
    }  # fmt: skip
    at = {"tokens": named["group"], "step": int(named["step"]), "layer": layer, "site": named["site"]}
    return Shown(f"patched at step {int(named['step'])}", told, at)
