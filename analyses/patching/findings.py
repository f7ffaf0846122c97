"""What patching concludes: do named tokens in one cell carry the pair's answer, beyond what any foreign tokens do?"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cos_interp.analyses.driver.findings import Finding, Number, decide
from cos_interp.analyses.driver.statistics import mean_number, paired
from cos_interp.analyses.kit.grid import EVERYWHERE
from cos_interp.analyses.patching.summary import main_rows

SMALLEST = 0.1
"""The smallest difference of interest, written before any number was seen: a tenth of the way from one run to the other.

The deciding number: the effect of the pair's donor minus that of a random item's tokens, in the same step, layer and tokens.
The cell is the one with the largest such difference. It is chosen for every pair on the *other* pairs alone, so that choosing
the best of many cells does not raise the number; only cells that half of them have can be chosen, and only the first site
counts. The interval is over pairs. Reproduced above SMALLEST, refuted below minus SMALLEST.
"""
RULE = f"the interval lies above {SMALLEST}, below -{SMALLEST}: refuted; the cell is chosen on the other pairs"
CLAIM = "What the answer is about sits in tokens that can be named, in one layer at one step (5.2)"
POINT = ["group", "step", "layer"]


def compared(rows: pd.DataFrame, noising: bool) -> pd.DataFrame:
    """Columns ``pair, group, step, layer, sigma, own, control``: how far the target moved with the pair's donor and with the
    random one in the same cells of the first site. Named groups, or all tokens where there are none."""
    plain = rows[rows["head"].isna() & rows.frame.isna() & (rows.site == main_rows(rows).site.iloc[0])]
    plain = plain.assign(moved=1 - plain.effect if noising else plain.effect, layer=plain.layer.fillna(-1).astype(int))
    own, control = plain[plain.donor == "clean"], plain[plain.donor == "random"]
    both = own.merge(control[["pair", *POINT, "moved"]], on=["pair", *POINT], suffixes=("", "_control"))
    both = both.rename(columns={"moved": "own", "moved_control": "control"})[["pair", *POINT, "sigma", "own", "control"]]
    named = both[both.group != EVERYWHERE]
    return named if len(named) else both


def best(cells: pd.DataFrame) -> pd.Series:
    """Mean difference of each cell that at least half of the pairs have, the largest first."""
    difference = (cells.own - cells.control).groupby([cells[name] for name in POINT])
    enough = difference.count() >= cells.pair.nunique() / 2
    return difference.mean()[enough].sort_values(ascending=False, kind="stable")


def held_out(cells: pd.DataFrame) -> pd.DataFrame:
    """For each pair its own row of the best cell of the other pairs, among those that it has itself."""
    picked = []
    for pair, mine in cells.groupby("pair", sort=False):
        order, there = best(cells[cells.pair != pair]).index, mine.set_index(POINT)
        at = next((point for point in order if point in there.index), None)
        if at is not None:
            picked.append({"pair": pair, **there.loc[at, ["own", "control"]]})
    return pd.DataFrame(picked, columns=["pair", "own", "control"]).set_index("pair").astype(float)


def findings(rows: pd.DataFrame, kinds: Sequence[str], noising: bool) -> list[Finding]:
    """One finding a kind of pair; not testable where there is no pair, no control, or one pair only."""
    return [_finding(kind, rows[rows.pair_kind == kind] if len(rows) else rows, noising) for kind in kinds]


def _finding(kind: str, rows: pd.DataFrame, noising: bool) -> Finding:
    cells = compared(rows, noising) if len(rows) else pd.DataFrame()
    control = "tokens of a random item in the same cells"
    if cells.empty:
        nothing = Number(float("nan"))
        return Finding(CLAIM, "not testable", f"{kind} pairs: no cell with its control", nothing, control, nothing, RULE)
    group, step, layer = best(cells).index[0]
    here = cells[(cells.group == group) & (cells.step == step) & (cells.layer == layer)]
    kept = held_out(cells)
    more = paired(kept.own, kept.control)
    place = "x_t" if layer < 0 else f"layer {layer}"
    statement = (
        f"{kind} pairs: the largest difference is that of the tokens {group} in {place} at step {step} (sigma "
        f"{here.sigma.iloc[0]:.2f}), effect {mean_number(here.own)} against {mean_number(here.control)}; in the cell that is the "
        "best of the other pairs, the pair's own donor exceeds a random item's tokens by"
    )
    return Finding(CLAIM, decide(more.low, more.high, SMALLEST), statement, more, control, mean_number(kept.control), RULE)
