"""The page of a gradient map: where it may be believed first, then the map. Knows rows, not models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.facts import LeftOut
from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.rules import rules
from cos_interp.analyses.kit.grid import SELF
from cos_interp.analyses.patching import MapFacts, PairFacts, agreement, summary
from cos_interp.analyses.patching.map_findings import findings
from cos_interp.reports import figures

QUESTION = (
    "Which places of a run would an exact patch move most, at first order, and how far is that to be believed? Two runs with "
    "different answers are recorded. One sweep back over the receiving run gives the gradient of the effect at every place; "
    "(donor - receiver) . gradient is what a patch there would do if the model were a straight line between the two. Some cells "
    "are then finished exactly, a random sample and the map's own largest, and the map is held against them."
)
SOURCE = "attribution patching (Syed et al. 2310.10348) over denoising steps, against exact cells"
LOOK = (
    "A gradient map is a first look. It says where to look with exact patches, and no verdict on the model follows from it: run "
    "the same command without --method gradient for that."
)
AGREES = (
    "Over the sampled cells of a pair, then mean over pairs with its 95 % interval. Spearman: of the map's change and the exact "
    "one. Share: Spearman of a predictor without a gradient, the patched tokens' share of the two runs' difference. Sign: share "
    "of cells in which both have one sign. Recall: of the quarter of the sample with the largest exact changes, what the map "
    "has in its own largest quarter (by chance .25). Top hits: the share of the map's largest cells whose exact change would be "
    "in the largest quarter of the sample; their mean size, as estimated and as found, says how far the first order overshoots."
)
PAIRS = (
    "Spearman of each pair over its sampled cells; the 95 % interval (BCa) is over these cells, and says nothing of other pairs."
)
MAP = (
    "A first look, from which no verdict on the model follows: it says where to patch exactly. First-order change of the effect, "
    "mean over {n} pairs, by layer (up) and step (right, with its sigma), one map a token group. How far it is to be believed: "
    "{trust}"
)
TOP = (
    "The map's largest cells of every pair, in either direction, with what an exact patch does there and what the verifier then "
    "reads from the video."
)


def page(result: AnalysisResult) -> Report:
    """The report of a run with ``method="gradient"``."""
    config, rows = result.config, result.rows
    title = f"Gradient map: {config.task if config.pair_file is None else 'own pairs'}"
    if rows.empty or "estimate" not in rows:
        return pages.build(result, title, QUESTION, SOURCE, [], [], [*_missing(result), LOOK])
    cells = agreement.compared(rows, config.direction == "noising")
    each = agreement.by_pair(cells)
    lines = agreement.over_pairs(each)
    notes = [LOOK, *(trust(line) for line in lines), _cost(result), *_missing(result)]
    sections = [
        pages.Section("How the map agrees with exact cells", caption=AGREES, table=_agreement(lines), key=True),
        *_maps(rows, result, lines), _tops(cells), pages.Section("Pair by pair", caption=PAIRS, table=_each(cells, each)),
    ]  # fmt: skip
    made = pages.build(result, title, QUESTION, SOURCE, findings(result, cells, each), sections, notes)
    return replace(made, data={**made.data, "agreement": [_plain(line) for line in lines]})


def trust(line: dict[str, Any]) -> str:
    """In words what the agreement of a kind of pair and tokens allows, by the smallest correlation of the rules."""
    found: Number = line["spearman"]
    enough, where = (
        rules()[f"patching.map-{line['pair_kind']}"].smallest,
        f"{line['pair_kind']} pairs, {line['site']}, {line['tokens']}",
    )
    numbers = f"Spearman {found}, of {line['cells']} exact cells"
    if np.isnan(found.high) and found.value < enough:
        return f"{where}: the map failed on what was tried ({numbers}; {enough:g} is asked): do not read it, patch exactly."
    if found.high < enough:
        return f"{where}: the map fails here ({numbers}; {enough:g} is asked): do not read it, patch exactly."
    if found.low > enough:
        return f"{where}: the map orders cells as exact patches do ({numbers}); its sizes are another matter."
    return f"{where}: it cannot be told whether the map orders cells as exact patches do ({numbers}; {enough:g} is asked)."


def _plain(line: dict[str, Any]) -> dict[str, Any]:
    return {key: vars(value) if isinstance(value, Number) else value for key, value in line.items()}


def _missing(result: AnalysisResult) -> list[str]:
    left = result.units_of(LeftOut).items()
    return [f"{name.removesuffix('-pair')} was left out: {facts.reason}" for name, facts in left]


def _cost(result: AnalysisResult) -> str:
    maps = result.units_of(MapFacts).values()
    cells, ran = sum(one.cells for one in maps), sum(one.block_calls for one in maps)
    exact = result.facts["block_calls"]
    return (
        f"{cells} cells were mapped by {len(maps)} sweep(s) back, which ran {ran} transformer blocks forward and back; the exact "
        f"cells took {exact} blocks."
    )


def _agreement(lines: Sequence[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([
        {
            "pairs": line["pair_kind"], "site": line["site"], "tokens": line["tokens"], "n pairs": line["pairs"],
            "n cells": line["cells"], "Spearman": str(line["spearman"]), "share": str(line["share"]), "sign": str(line["sign"]),
            "recall": str(line["recall"]), "n top": line["top"], "top hits": str(line["hits"]), "top sign": str(line["top_sign"]),
            "top size, estimated": _share(line["estimated"]), "found": _share(line["found"]),
        }
        for line in lines
    ])  # fmt: skip


def _maps(rows: pd.DataFrame, result: AnalysisResult, lines: Sequence[dict[str, Any]]) -> list[pages.Section]:
    out = []
    sigmas = next(iter(result.units_of(PairFacts).values())).sigmas
    main = rows[rows.estimate.notna() & (rows.donor != SELF) & rows.layer.notna()]
    for (kind, site), at in main.groupby(["pair_kind", "site"], sort=False):
        maps = [(group, summary.map_of(part, "estimate")) for group, part in at.groupby("group", sort=False)]
        limit = max(0.05, float(np.nanmax([np.abs(table.to_numpy(float)).max() for _, table in maps])))
        ticks = {int(step): float(sigmas[int(step)]) for step in at.step.unique()}
        figure = figures.heat_maps(maps, ticks, "first-order change of the effect", limit, panel="tokens")
        told = " ".join(trust(line) for line in lines if (line["pair_kind"], line["site"]) == (kind, site))
        caption = MAP.format(n=at.pair.nunique(), trust=told)
        out.append(pages.Section(f"The map, not exact: {kind} pairs, {site}", figure, caption))
    return out


def _tops(cells: pd.DataFrame) -> pages.Section:
    top = agreement.topmost(cells).assign(size=lambda found: found.estimate.abs()).sort_values("size", ascending=False)
    table = pd.DataFrame([
        {
            "pair": row.pair, "site": row.site, "tokens": row.group, "step": int(row.step),
            "layer": "" if pd.isna(row.layer) else int(row.layer), "estimated": f"{row.estimate:.3f}",
            "exact change": f"{row.change:.3f}", "reads": "–" if row.outcome is None else row.outcome,
        }
        for row in top.itertuples()
    ])  # fmt: skip
    return pages.Section("The map's largest cells, exactly", caption=TOP, table=table)


def _each(cells: pd.DataFrame, each: pd.DataFrame) -> pd.DataFrame:
    out = []
    for row in each.itertuples():
        mine = cells[(cells.pair == row.pair) & (cells.site == row.site) & (cells.tokens == row.tokens) & (cells.donor != SELF)]
        spearman = str(agreement.over_cells(mine).number())
        where = {"pair": row.pair, "site": row.site, "tokens": row.tokens, "Spearman over cells": spearman}
        out.append(where | {"sign": f"{row.sign:.2f}", "recall": f"{row.recall:.2f}", "share": _share(row.share)})
    return pd.DataFrame(out)


def _share(value: float) -> str:
    return "–" if value != value else f"{value:.2f}"
