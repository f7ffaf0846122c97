"""Numbers of a patching result: means over pairs with intervals, and the controls beside them. Pure of models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cos_interp.analyses.driver.estimates import EFFECT, EFFECTS, Mean
from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.statistics import effect, remaining_share, reread_share
from cos_interp.analyses.kit.grid import EVERYWHERE, X_T
from cos_interp.analyses.patching.cells import CONTROLS
from cos_interp.tasks.tally import share_interval


def main_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The grid itself: patches from the clean run, without the control that puts in the whole x_t.

    x_t that was asked for has controls of its own, as every site has; the control has none.
    """
    controls = rows[rows.donor != "clean"]
    extra = (rows.site == X_T) & (len(controls) > 0) & (X_T not in set(controls.site))
    return rows[(rows.donor == "clean") & ~extra]


def strongest(rows: pd.DataFrame, noising: bool) -> int | None:
    """The place among rows of the single-group patch with the largest effect (smallest when noising), the first of equal ones;
    flips to the donor's answer come first. None without a judged patch."""
    rows = rows.reset_index(drop=True)
    rows = main_rows(rows[rows.outcome.notna()])
    rows = rows[rows.group != EVERYWHERE] if (rows.group != EVERYWHERE).any() else rows
    order = (-1 if noising else 1) * rows.effect + 10 * (rows.outcome == "donor")
    return None if order.dropna().empty else int(order.astype(float).idxmax())


OUTCOMES = ("donor", "target", "other", "undecided")
GRADED = ("donor_shown", "target_shown")
BOUNDS = {"effect": EFFECT, **dict.fromkeys(GRADED, (0.0, 1.0))}


def counted(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with effects as they count, see :func:`driver.statistics.effect`."""
    return rows.assign(effect=effect(rows.effect))


def over_pairs(rows: pd.DataFrame, value: str) -> Number:
    """Mean within each pair, then over pairs, with the interval over pairs (bootstrap-t); pairs without a value are left out."""
    each = rows[value].astype(float).clip(*BOUNDS[value])
    return Mean(each.groupby(rows.pair).mean().to_numpy(float), bounds=BOUNDS[value]).number()


def map_of(rows: pd.DataFrame, value: str, along: str = "step") -> pd.DataFrame:
    """Layer x step table (or layer x ``group``) of means over pairs; ``value="flipped"``: how many gave the donor's answer."""
    column = (rows.outcome == "donor").astype(float) if value == "flipped" else rows[value].astype(float)
    table = rows.assign(value=column).pivot_table(index="layer", columns=along, values="value", aggfunc="mean", dropna=False)
    order = sorted(table.columns) if along == "step" else list(dict.fromkeys(rows[along]))
    return table.sort_index()[order]


def profile(rows: pd.DataFrame) -> pd.DataFrame:
    """Effect by step: mean over layers within a pair, then mean and 95 % interval over pairs."""
    out = []
    for step, at in rows.groupby("step"):
        found = over_pairs(at, "effect")
        out.append({"step": step, "sigma": at.sigma.iloc[0], **found.point})
    return pd.DataFrame(out)


def expected(sigmas: Sequence[float], steps: list[int], span: str) -> dict[str, list[float]]:
    """The two trivial curves beside a profile (see analyses.statistics)."""
    last = len(sigmas) - 2
    first = {"single": lambda k: k, "from": lambda k: k, "until": lambda k: 0}[span]
    end = {"single": lambda k: k, "from": lambda k: last, "until": lambda k: k}[span]
    curves = {"re-read velocity": [reread_share(sigmas, first(k), end(k)) for k in steps]}
    if span == "single":
        curves["share of the remaining path"] = [remaining_share(sigmas, k) for k in steps]
    return curves


def table(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """One line a (pair kind, site, donor, token group): mean effect with interval over pairs (the cells of a pair are averaged
    first), what the verifier says, and the graded readings.

    The interval of the flips is Clopper and Pearson's for the share of *pairs* in which at least one cell flipped.
    """
    out = []
    full = rows[~rows.donor.isin(CONTROLS) | (rows.group == EVERYWHERE)]  # controls of named groups: see against_controls
    for (kind, site, donor, group), at in full.groupby(["pair_kind", "site", "donor", "group"], sort=False):
        moved = over_pairs(at, "effect")
        judged = at[at.outcome.notna()]
        flipped = int((judged.outcome == "donor").groupby(judged.pair).any().sum())
        flip_low, flip_high = share_interval(flipped, judged.pair.nunique())
        out.append(
            {
                "pair_kind": kind,
                "site": site,
                "donor": donor,
                "group": group,
                "pairs": int(at.pair.nunique()),
                "cells": len(at),
                "effect": moved.value,
                "low": moved.low,
                "high": moved.high,
                **{name: over_pairs(at, name).value for name in GRADED},
                "largest": float(at.effect.max()),
                "flipped_cells": float((judged.outcome == "donor").mean()),
                "undecided_cells": float((judged.outcome == "undecided").mean()),
                "flipped_pairs": flipped,
                "flip_low": flip_low,
                "flip_high": flip_high,
            }
        )
    return out


def against_controls(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The pair's donor against another donor in the same cells, one line a (pair kind, site, token group, control).

    Means over the cells of a pair, then over pairs, with the interval of the difference over pairs. Cells that were not
    measured with both donors (single heads or frames) are left out.
    """
    point = ["pair_kind", "site", "group", "pair", "step", "layer"]
    plain = rows[rows["head"].isna() & rows.frame.isna()]
    measured = plain[plain.donor == "clean"].merge(plain[plain.donor.isin(CONTROLS)], on=point, suffixes=("", "_control"))
    out = []
    for (kind, site, group, donor), at in measured.groupby(["pair_kind", "site", "group", "donor_control"], sort=False):
        pairs = at.groupby("pair")[["effect", "effect_control"]].mean()
        more = Mean((pairs.effect - pairs.effect_control).to_numpy(float), bounds=EFFECTS).number()
        flips, control_flips = (float((at[c].dropna() == "donor").mean()) for c in ("outcome", "outcome_control"))
        means = {"effect": float(pairs.effect.mean()), "control": float(pairs.effect_control.mean())}
        out.append({
            "pair_kind": kind, "site": site, "group": group, "donor": donor, "pairs": len(pairs), "cells": len(at), **means,
            "difference": more.value, "low": more.low, "high": more.high, "flipped": flips, "control_flipped": control_flips,
        })  # fmt: skip
    return out


def best_cells(rows: pd.DataFrame, count: int = 5) -> list[dict[str, Any]]:
    """The (kind, site, group, step, layer) points with the largest mean effect over pairs, of named groups if there are any, with
    both outcomes: how far the latent moved, and what the verifier says of the video."""
    keys = ["pair_kind", "site", "group", "step", "sigma", "layer"]
    main = main_rows(rows)
    named = main[main.group != EVERYWHERE]
    grouped = (named if len(named) else main).groupby(keys, dropna=False)
    out = []
    for key, at in grouped:
        said = None if at.outcome.isna().any() else {name: int((at.outcome == name).sum()) for name in OUTCOMES}
        graded = {name: over_pairs(at, name) for name in GRADED}
        where = dict(zip(keys, key, strict=True))
        out.append({**where, "effect": over_pairs(at, "effect"), "said": said, **graded, "n": at.pair.nunique()})
    return sorted(out, key=lambda r: -np.nan_to_num(r["effect"].value, nan=-9))[:count]


def headline(rows: pd.DataFrame) -> list[str]:
    """Plain sentences with numbers, one a pair kind, site and range of steps: its cell with the largest effect."""
    out = []
    for (kind, site, span), at in main_rows(rows).groupby(["pair_kind", "site", "span"], sort=False):
        cell = best_cells(at, 1)[0]
        place = "" if pd.isna(cell["layer"]) else f" in layer {int(cell['layer'])}"
        out.append(
            f"{kind} pairs (n = {at.pair.nunique()}), {site}, {span} step k: of all cells the largest effect is that of tokens "
            f"{cell['group']}{place} at step {int(cell['step'])} (sigma {cell['sigma']:.3f}), {cell['effect']}{_said(cell)}."
        )
    return out


def _said(cell: dict[str, Any]) -> str:
    """Both readings of the videos of a cell: the strict verdict, and how much of either answer the last frame shows."""
    if cell["said"] is None:
        return ""
    counts = ", ".join(f"{name} {count}" for name, count in cell["said"].items())
    shown = f"the donor's answer {cell['donor_shown'].value:.2f}, the receiving run's own {cell['target_shown'].value:.2f}"
    return f"; the verifier reads {counts}; shown in the last frame: {shown}"
