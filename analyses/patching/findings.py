"""What patching concludes: do named tokens in one layer carry the pair's answer, beyond what any foreign tokens do?

The deciding number of a pair: the effect of its donor minus the larger of two controls in the same step, layer and tokens. A
random item's tokens: what any disturbance does. The share of the two runs' difference that lies in the patched tokens: what is
had by writing them and nothing else, as in the last block, whose tokens are the answer's pixels and not its cause. The cell is
the one in which this difference is largest on the *other half* of the pairs, so that choosing the best of many cells does not
raise the number. Only tokens that the task names can be chosen: all of them together, or all without a name, are no place.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import EFFECT, EFFECTS, Mean
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.statistics import effect
from cos_interp.analyses.kit.grid import EVERYWHERE, SELF
from cos_interp.analyses.kit.halves import halves
from cos_interp.analyses.patching import DEFAULT_SITES
from cos_interp.analyses.patching.cells import REST
from cos_interp.analyses.patching.pieces import OWN
from cos_interp.analyses.patching.summary import main_rows

POINT = ["group", "step", "layer"]
READ = "cross_attn.hook_z"  # where a prompt enters
INERT = 0.1  # a random donor that moves the target less than this share of what the pair's own does is no control
COLUMNS = ["pair", *POINT, "sigma", "own", "random", "share", "control", "moved", "control_moved"]


def compared(rows: pd.DataFrame, noising: bool) -> pd.DataFrame:
    """One row a pair and cell of the named tokens, from rows of one site. ``own``, ``random``: how far the pair's donor and the
    random one move the target along the difference of the pair, as it counts; ``moved``, ``control_moved``: in any direction;
    ``share``: the tokens' part of that difference; ``control``: the larger of it and ``random``, NaN where one is missing."""
    if rows.empty:
        return pd.DataFrame(columns=COLUMNS)
    plain = rows[rows["head"].isna() & rows.frame.isna() & ~rows.group.isin([EVERYWHERE, REST])]
    plain = plain.assign(own=effect(1 - plain.effect if noising else plain.effect), layer=plain.layer.fillna(-1).astype(int))
    own, control = plain[plain.donor == "clean"], plain[plain.donor == "random"]
    control = control[["pair", *POINT, "own", "moved"]].rename(columns={"own": "random", "moved": "control_moved"})
    both = own.merge(control, on=["pair", *POINT])
    return both.assign(control=both[["random", "share"]].max(axis=1, skipna=False))[COLUMNS]


def best(cells: pd.DataFrame) -> pd.Series:
    """Mean difference of each cell that at least half of the pairs have, the largest first."""
    difference = (cells.own - cells.control).groupby([cells[name] for name in POINT])
    enough = difference.count() >= cells.pair.nunique() / 2
    return difference.mean()[enough].sort_values(ascending=False, kind="stable")


def held_out(cells: pd.DataFrame) -> pd.DataFrame:
    """For each pair its own row of the best cell of the other half of the pairs, among those that it has itself."""
    half = halves(cells.pair)
    picked = []
    for number in (0, 1):
        order = best(cells[half != number]).index
        for _, mine in cells[half == number].groupby("pair", sort=False):
            there = mine.set_index(POINT, drop=False)
            at = next((point for point in order if point in there.index), None)
            if at is not None:
                picked.append(there.loc[at])
    return pd.DataFrame(picked, columns=COLUMNS).reset_index(drop=True)


def placebo_moves(rows: pd.DataFrame, noising: bool) -> bool:
    """Whether the receiving run as its own donor changes anything, which it must not to the last bit."""
    return bool((rows[rows.donor == SELF].effect != float(noising)).any()) if len(rows) else False


def findings(result: AnalysisResult) -> list[Finding]:
    """One finding a kind of pair, of the first site; for prompt pairs one more of what the prompt is read with."""
    config, rows = result.config, result.rows
    kinds = config.pair_kinds if config.pair_file is None else (OWN,)
    out = []
    for kind in kinds:
        mine = rows[rows.pair_kind == kind] if len(rows) else rows
        sites = list(main_rows(mine).site.unique()) if len(mine) else []
        if config.coarse is not None:  # of whose first site perhaps no cell was finished
            sites = list(dict.fromkeys([*(config.sites or DEFAULT_SITES)[:1], *sites]))
        sites = sites or [""]
        out.append(_finding(result, f"patching.{kind}", kind, mine, sites[0]))
        if kind == "prompt" and READ in sites[1:]:
            out.append(_finding(result, "patching.read", kind, mine, READ))
    return out


def _finding(result: AnalysisResult, key: str, kind: str, rows: pd.DataFrame, site: str) -> Finding:
    noising = result.config.direction == "noising"
    cells = compared(rows[rows.site == site] if len(rows) else rows, noising)
    kept = held_out(cells)
    difference = Mean((kept.own - kept.control).astype(float).set_axis(kept.pair), bounds=EFFECTS)
    return result.judge(
        key, difference, _statement(kind, site, cells, kept), Mean(kept.control.to_numpy(float), bounds=EFFECT).number(),
        _unfit(kept, placebo_moves(rows, noising)), _short(kind, site, rows, kept),
    )  # fmt: skip


def _unfit(kept: pd.DataFrame, moves: bool) -> str | None:
    if moves:
        return "the placebo, the run as its own donor, changes the run"
    own, control = (float(np.mean(kept[name])) if len(kept) else np.nan for name in ("moved", "control_moved"))
    if len(kept) and not control >= INERT * own:
        return f"the control does nothing: a random item's tokens move the run by {control:.3f}, the pair's own by {own:.3f}"
    return None


def _statement(kind: str, site: str, cells: pd.DataFrame, kept: pd.DataFrame) -> str:
    if kept.empty:
        return f"{kind} pairs: no cell of named tokens with its control"
    group, step, layer = best(cells).index[0]
    counted = Counter(zip(kept.group, kept.step, kept.layer, strict=True))
    chosen = "; ".join(f"{_place(*point, site)} for {count} pairs" for point, count in counted.items())
    controls = f"effect {kept.own.mean():.2f}, of a random item's tokens {kept.random.mean():.2f}, share {kept.share.mean():.2f}"
    return (
        f"{kind} pairs: the largest difference of all cells is in {_place(group, step, layer, site)} (sigma "
        f"{cells[cells.step == step].sigma.iloc[0]:.2f}); in the cell that is the best of the other half ({chosen}: {controls}), "
        "the effect exceeds the larger control by"
    )


def _short(kind: str, site: str, rows: pd.DataFrame, kept: pd.DataFrame) -> str:
    if kept.empty:
        return ""
    (point, count), *others = Counter(zip(kept.group, kept.step, kept.layer, strict=True)).most_common()
    steps = {"single": "alone", "from": "and all later ones", "until": "and all earlier ones"}[rows.span.iloc[0]]
    elsewhere = f", and {len(others)} more for the others" if others else ""
    return (
        f"in {kind} pairs, patching {_place(*point, site)} {steps} (the best cell of the other half for {count} of {len(kept)} "
        f"pairs{elsewhere}) moves the result {kept.own.mean():.2f} of the way to the donor's; that exceeds the larger control by"
    )


def _place(group: str, step: int, layer: int, site: str) -> str:
    where = "x_t" if layer < 0 else f"{site} of layer {layer}"
    return f"tokens {group}, {where}, step {step}"
