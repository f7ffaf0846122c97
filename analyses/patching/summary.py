"""Numbers of a patching result: means over pairs with intervals, and the controls beside them. Pure of models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.statistics import bootstrap_mean, by_item, remaining_share, reread_share
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


def map_of(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """Layer x step table: mean effect, or with ``value="flipped"`` the share of pairs that gave the donor's answer."""
    column = (rows.outcome == "donor").astype(float) if value == "flipped" else rows.effect
    table = rows.assign(value=column).pivot_table(index="layer", columns="step", values="value", aggfunc="mean", dropna=False)
    return table.sort_index()


def profile(rows: pd.DataFrame) -> pd.DataFrame:
    """Effect by step: mean over layers within a pair, then mean and 95 % bootstrap interval over pairs."""
    out = []
    for step, at in rows.groupby("step"):
        mean, low, high = bootstrap_mean(at.groupby("pair").effect.mean().to_numpy())
        out.append({"step": step, "sigma": at.sigma.iloc[0], "mean": mean, "low": low, "high": high, "n": at.pair.nunique()})
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
    """One line a (pair kind, site, donor, token group): mean effect with interval over pairs, flips with interval.

    The interval of the effect resamples pairs (the cells of a pair are averaged first). The interval of the flips is
    Clopper and Pearson's for the share of *pairs* in which at least one cell flipped.
    """
    out = []
    full = rows[~rows.donor.isin(CONTROLS) | (rows.group == EVERYWHERE)]  # controls of named groups: see against_controls
    for (kind, site, donor, group), at in full.groupby(["pair_kind", "site", "donor", "group"], sort=False):
        by_pair = at.groupby("pair")
        mean, low, high = bootstrap_mean(by_pair.effect.mean().to_numpy())
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
                "effect": mean,
                "low": low,
                "high": high,
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

    Means over the cells of a pair, then over pairs; the interval of the difference resamples pairs. Cells that were not
    measured with both donors (single heads or frames) are left out.
    """
    point = ["pair_kind", "site", "group", "pair", "step", "layer"]
    plain = rows[rows["head"].isna() & rows.frame.isna()]
    measured = plain[plain.donor == "clean"].merge(plain[plain.donor.isin(CONTROLS)], on=point, suffixes=("", "_control"))
    out = []
    for (kind, site, group, donor), at in measured.groupby(["pair_kind", "site", "group", "donor_control"], sort=False):
        pairs = at.groupby("pair")[["effect", "effect_control"]].mean()
        mean, low, high = bootstrap_mean((pairs.effect - pairs.effect_control).to_numpy())
        flips, control_flips = (float((at[c].dropna() == "donor").mean()) for c in ("outcome", "outcome_control"))
        means = {"effect": float(pairs.effect.mean()), "control": float(pairs.effect_control.mean())}
        out.append({
            "pair_kind": kind, "site": site, "group": group, "donor": donor, "pairs": len(pairs), "cells": len(at), **means,
            "difference": mean, "low": low, "high": high, "flipped": flips, "control_flipped": control_flips,
        })  # fmt: skip
    return out


def best_cells(rows: pd.DataFrame, count: int = 5) -> list[dict[str, Any]]:
    """The (kind, site, group, step, layer) points with the largest mean effect over pairs, of named groups if there are any."""
    keys = ["pair_kind", "site", "group", "step", "sigma", "layer"]
    main = main_rows(rows)
    named = main[main.group != EVERYWHERE]
    grouped = (named if len(named) else main).groupby(keys, dropna=False)
    out = []
    for key, at in grouped:
        mean, low, high = bootstrap_mean(at.effect.to_numpy())
        flips = None if at.outcome.isna().any() else int((at.outcome == "donor").sum())
        out.append({**dict(zip(keys, key, strict=True)), "effect": mean, "low": low, "high": high, "flips": flips, "n": len(at)})
    return sorted(out, key=lambda r: -np.nan_to_num(r["effect"], nan=-9))[:count]


def decisive(by_step: pd.DataFrame, span: str) -> tuple[pd.Series, str]:
    """The step that a profile points at, and what is said of it."""
    half = by_step[by_step["mean"] >= 0.5]
    largest = by_step.loc[by_step["mean"].idxmax()]
    if span == "single":
        return largest, "the single step with the largest effect is"
    if half.empty:
        return largest, "the effect stays under one half at every step; it is largest at"
    if span == "from":
        return half.iloc[-1], "patching from step k on still carries most of the answer up to"
    return half.iloc[0], "patching up to step k carries most of the answer from"


def headline(rows: pd.DataFrame) -> list[str]:
    """Plain sentences with numbers, one a pair kind, site and range of steps. All numbers of a sentence are of one step."""
    out = []
    for (kind, site, span), at in main_rows(rows).groupby(["pair_kind", "site", "span"], sort=False):
        whole = at[at.group == EVERYWHERE] if (at.group == EVERYWHERE).any() else at[at.group == at.group.iloc[0]]
        row, words = decisive(profile(whole), span)
        here = whole[whole.step == row.step]
        out.append(
            f"{kind} pairs (n = {at.pair.nunique()}), {site}, tokens {whole.group.iloc[0]}: {words} step {int(row.step)} "
            f"(sigma {row.sigma:.3f}), with effect {by_item(here, 'effect', 'pair')}{_by_layer(here)}{_flips(at)}."
        )
    return out


def _by_layer(here: pd.DataFrame) -> str:
    """The layers with the smallest and the largest mean effect of one step, where there are several."""
    found: dict[int, Number] = {int(layer): by_item(part, "effect", "pair") for layer, part in here.groupby("layer")}
    if len(found) < 2:
        return f" in layer {next(iter(found))}" if found else ""
    low, high = (choose(found, key=lambda layer: found[layer].value) for choose in (min, max))
    if found[low].value == found[high].value:
        return f", the same in each of {len(found)} layers"
    return f", mean over {len(found)} layers; at this step from {found[low]} in layer {low} to {found[high]} in layer {high}"


def _flips(at: pd.DataFrame) -> str:
    if at.outcome.isna().any():
        return ""
    flips = (at.outcome == "donor").groupby(at.pair).any()
    return f"; some patch flipped the answer to the donor's in {int(flips.sum())} of {len(flips)} pairs"
