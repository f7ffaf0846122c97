"""The videos of a patching report: both runs of every pair, and the patch that moved the answer most."""

from __future__ import annotations

import pandas as pd

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.pages import Clip
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.patching import PairFacts, StepFacts
from cos_interp.analyses.patching.pieces import Piece
from cos_interp.analyses.patching.summary import strongest


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
        kept = _kept(result, store, piece)
        if (place := strongest(kept, noising)) is not None:
            out.append(_patched(store, piece, kept.iloc[place]))
    return out


def _kept(result: AnalysisResult, store: RunStore, piece: Piece) -> pd.DataFrame:
    """The rows of a pair whose videos were kept, one a step."""
    units = {piece.unit(int(step)) for step in result.rows[result.rows.pair == piece.name].step}
    shown = {unit: facts.shown for unit, facts in result.units_of(StepFacts).items() if unit in units}
    rows = [store.finished(unit)[0][place] for unit, place in sorted(shown.items()) if place is not None]
    return pd.DataFrame(rows, columns=result.rows.columns)


def _patched(store: RunStore, piece: Piece, row: pd.Series) -> Clip:
    step = int(row.step)
    place = f"layer {int(row.layer)}" if pd.notna(row.layer) else "the latent"
    text = f"{row.site}, {place}, step {step}, {row.group}: effect {row.effect:.2f}, reads: {row.outcome}, shown: donor's answer "
    text += f"{row.donor_shown:.2f}, own {row.target_shown:.2f}"
    return Clip(f"{piece.name} patched", text, store.tensors(piece.unit(step))["shown"].numpy())
