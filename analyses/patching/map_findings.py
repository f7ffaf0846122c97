"""What a gradient map says of itself: whether it orders cells as exact patches do. Of the model it concludes nothing."""

from __future__ import annotations

import pandas as pd

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.kit.grid import SELF
from cos_interp.analyses.patching.agreement import ALL, LIKE, NAMED
from cos_interp.analyses.patching.pieces import OWN


def findings(result: AnalysisResult, cells: pd.DataFrame, each: pd.DataFrame) -> list[Finding]:
    """One finding a kind of pair: of the first site, named tokens where it has them. ``cells``, ``each``: see ``agreement``."""
    config = result.config
    kinds = config.pair_kinds if config.pair_file is None else (OWN,)
    return [_finding(result, kind, cells, each) for kind in kinds]


def _finding(result: AnalysisResult, kind: str, cells: pd.DataFrame, each: pd.DataFrame) -> Finding:
    tokens = ALL if kind == OWN else NAMED
    mine = each[(each.pair_kind == kind) & (each.tokens == tokens)] if len(each) else each
    site = mine.site.iloc[0] if len(mine) else ""
    mine = mine[mine.site == site] if len(mine) else mine
    column = lambda name: mine[name].to_numpy(float) if len(mine) else []
    drawn = f"over {sum(column('n')):.0f} exact cells of {tokens} in {site}, drawn at random"
    said = f"{kind} pairs: {drawn}, the map's order and the exact one have"
    return result.judge(
        f"patching.map-{kind}", Mean(column("spearman"), bounds=LIKE), f"{said} a Spearman correlation of",
        Mean(column("share"), bounds=LIKE).number(), _unfit(cells),
    )  # fmt: skip


def _unfit(cells: pd.DataFrame) -> str | None:
    own = cells[cells.donor == SELF] if len(cells) else cells
    if len(own) and ((own.estimate != 0) | (own.change != 0)).any():
        return "the placebo, the run as its own donor, is not exactly 0"
    return None
