"""What a gradient map says of itself: whether it orders cells as exact patches do. Of the model it concludes nothing."""

from __future__ import annotations

import pandas as pd

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.kit.grid import SELF
from cos_interp.analyses.patching.agreement import ALL, LIKE, NAMED
from cos_interp.analyses.patching.pieces import OWN

BOXED = "own-named"


def findings(result: AnalysisResult, cells: pd.DataFrame, each: pd.DataFrame) -> list[Finding]:
    """One finding a kind of pair: of the first site, of named tokens; of own pairs of all tokens, and of those in boxes where
    exact cells of such are there. ``cells``, ``each``: see ``agreement``."""
    config = result.config
    if config.pair_file is None:
        return [_finding(result, kind, kind, NAMED, cells, each) for kind in config.pair_kinds]
    there = set(each.tokens) if len(each) else set()
    asked = [(key, tokens) for key, tokens in ((OWN, ALL), (BOXED, NAMED)) if tokens in there] or [(OWN, ALL)]
    return [_finding(result, key, OWN, tokens, cells, each) for key, tokens in asked]


def _finding(result: AnalysisResult, key: str, kind: str, tokens: str, cells: pd.DataFrame, each: pd.DataFrame) -> Finding:
    mine = each[(each.pair_kind == kind) & (each.tokens == tokens)] if len(each) else each
    if len(mine):
        site = mine.site.iloc[0]
        mine = mine[mine.site == site]
        drawn = f"over {mine.n.sum():.0f} exact cells of {tokens} in {site}, drawn at random"
    else:
        drawn = f"no exact cell of {tokens} is there"
    column = lambda name: mine[name].to_numpy(float) if len(mine) else []
    said = f"{kind} pairs: {drawn}, the map's order and the exact one have"
    return result.judge(
        f"patching.map-{key}", Mean(column("spearman"), bounds=LIKE), f"{said} a Spearman correlation of",
        Mean(column("share"), bounds=LIKE).number(), _unfit(cells),
    )  # fmt: skip


def _unfit(cells: pd.DataFrame) -> str | None:
    own = cells[cells.donor == SELF] if len(cells) else cells
    if len(cells) and own.empty:
        return "the placebo, the run as its own donor, was not run (--no-controls)"
    if len(own) and ((own.estimate != 0) | (own.change != 0)).any():
        return "the placebo, the run as its own donor, is not exactly 0"
    return None
