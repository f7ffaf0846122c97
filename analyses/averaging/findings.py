"""Does the average solve more than the last checkpoint, and more than the best one?"""

from __future__ import annotations

import pandas as pd

from cos_interp.analyses.averaging import AVERAGE, LAST
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import PairedShares, Share
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.rules import no_room
from cos_interp.analyses.kit.halves import choosing_half


def by_variant(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """A value by item, a column a variant: the last, the average, and the others in their order of training. Items without it are
    left out."""
    runs = rows[(rows.kind == "run") & rows[value].notna()]
    order = [LAST, AVERAGE, *(v for v in runs.variant.unique() if v not in (LAST, AVERAGE))]
    return runs.astype({value: float}).pivot_table(value, "problem", "variant").reindex(columns=order)


def findings(result: AnalysisResult) -> list[Finding]:
    return [_last(result), _best(result)]


def same(rows: pd.DataFrame) -> bool:
    """Whether the average makes the same videos as the last checkpoint, bit for bit."""
    moved = rows[(rows.kind == "run") & (rows.variant == AVERAGE)].moved
    return bool(len(moved)) and bool((moved == 0).all())


def _last(result: AnalysisResult) -> Finding:
    return _judged(result, "averaging.last", by_variant(result.rows, "solved"), LAST, "the last checkpoint")


def _best(result: AnalysisResult) -> Finding:
    """The best single checkpoint of one half of the items, held against the average on the other half."""
    table = by_variant(result.rows, "solved")
    choosing = choosing_half(result.rows[result.rows.kind == "run"]) if len(table) else set()
    half, rest = table[table.index.isin(choosing)], table[~table.index.isin(choosing)]
    best = str(half.drop(columns=AVERAGE).mean().idxmax()) if len(half) else LAST
    return _judged(result, "averaging.best", rest, best, f"the best checkpoint of other items ({best})")


def _judged(result: AnalysisResult, key: str, table: pd.DataFrame, control: str, name: str) -> Finding:
    own, beside = table[AVERAGE], table[control]
    bits = "the average makes the same videos as the last checkpoint, bit for bit" if same(result.rows) else None
    unfit = bits or no_room(key, 1 - float(beside.mean()), name)
    said = f"the average of the weights solves {Share(own).number()}; more than {name}, by"
    return result.judge(key, PairedShares(own, beside), said, Share(beside).number(), unfit)
