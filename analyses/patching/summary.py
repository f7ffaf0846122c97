"""Numbers of a patching result: means over pairs with intervals, and the controls beside them. Pure of models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cos_interp.analyses.driver.statistics import bootstrap_mean, remaining_share, reread_share
from cos_interp.analyses.patching import CONTROLS, EVERYWHERE
from cos_interp.tasks.tally import wilson


def main_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The grid itself: patches from the clean run, without the whole-x_t control."""
    return rows[(rows.donor == "clean") & ~((rows.site == "hook_x_t") & (rows.site.nunique() > 1))]


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


def expected(sigmas: list[float], steps: list[int], span: str) -> dict[str, list[float]]:
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
    Wilson's for the share of *pairs* in which at least one cell flipped.
    """
    out = []
    full = rows[~rows.donor.isin(CONTROLS) | (rows.group == EVERYWHERE)]  # controls of named groups: see against_controls
    for (kind, site, donor, group), at in full.groupby(["pair_kind", "site", "donor", "group"], sort=False):
        by_pair = at.groupby("pair")
        mean, low, high = bootstrap_mean(by_pair.effect.mean().to_numpy())
        flipped = int(by_pair.outcome.apply(lambda o: (o == "donor").any()).sum())
        flip_low, flip_high = wilson(flipped, at.pair.nunique())
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
                "flipped_cells": float((at.outcome == "donor").mean()),
                "undecided_cells": float((at.outcome == "undecided").mean()),
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
        flips, control_flips = (float((at[c] == "donor").mean()) for c in ("outcome", "outcome_control"))
        means = {"effect": float(pairs.effect.mean()), "control": float(pairs.effect_control.mean())}
        out.append({
            "pair_kind": kind, "site": site, "group": group, "donor": donor, "pairs": len(pairs), "cells": len(at), **means,
            "difference": mean, "low": low, "high": high, "flipped": flips, "control_flipped": control_flips,
        })  # fmt: skip
    return out


def best_cells(rows: pd.DataFrame, count: int = 5) -> list[dict[str, Any]]:
    """The (kind, site, group, step, layer) points with the largest mean effect over pairs, single groups only."""
    keys = ["pair_kind", "site", "group", "step", "sigma", "layer"]
    grouped = main_rows(rows).query("group != 'all'").groupby(keys, dropna=False)
    out = []
    for key, at in grouped:
        mean, low, high = bootstrap_mean(at.effect.to_numpy())
        flips = int((at.outcome == "donor").sum())
        out.append({**dict(zip(keys, key, strict=True)), "effect": mean, "low": low, "high": high, "flips": flips, "n": len(at)})
    return sorted(out, key=lambda r: -np.nan_to_num(r["effect"], nan=-9))[:count]


def decisive(by_step: pd.DataFrame, span: str) -> tuple[pd.Series | None, str]:
    """The step that a profile points at, and what is said of it (None: the profile never reaches one half)."""
    half = by_step[by_step["mean"] >= 0.5]
    if span == "single":
        return by_step.loc[by_step["mean"].idxmax()], "the single step with the largest effect is"
    if half.empty:
        return None, "the effect stays under one half at every step"
    if span == "from":
        return half.iloc[-1], "patching from step k on still carries most of the answer up to"
    return half.iloc[0], "patching up to step k carries most of the answer from"


def interval(row: pd.Series) -> str:
    """Mean with its interval, or with the reason why there is none."""
    return f"{row['mean']:.2f} " + (f"[{row.low:.2f}, {row.high:.2f}]" if row.n > 1 else "(one pair: no interval)")


def headline(result_rows: pd.DataFrame) -> list[str]:
    """Plain sentences with numbers, one a pair kind."""
    out = []
    rows = main_rows(result_rows)
    for kind, at in rows.groupby("pair_kind", sort=False):
        whole = at[at.group == "all"] if (at.group == "all").any() else at
        row, words = decisive(profile(whole), whole.span.iloc[0])
        by_layer = whole.groupby("layer").effect.mean()
        flips = (at.outcome == "donor").groupby(at.pair).any()
        place = (
            "" if row is None else f" step {int(row.step)} (sigma {row.sigma:.3f}), effect {interval(row)} averaged over layers"
        )
        spread = f"; between layers it varies from {by_layer.min():.2f} to {by_layer.max():.2f}" if len(by_layer) else ""
        out.append(
            f"{kind} pairs (n = {at.pair.nunique()}), tokens {whole.group.iloc[0]}: {words}{place}{spread}; "
            f"some patch flipped the answer to the donor's in {int(flips.sum())} of {len(flips)} pairs."
        )
    return out
