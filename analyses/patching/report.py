"""The report of a patching run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.patching import summary
from cos_interp.analyses.patching.media import clips
from cos_interp.analyses.patching.summary import against_controls, headline, table
from cos_interp.reports import figures
from cos_interp.reports.html import data_uri, drawing, render


def build(result: AnalysisResult, clips: dict[str, list[tuple[str, str, bytes]]]) -> str:
    """The page. ``clips`` has for every pair a list of (name, caption, mp4)."""
    rows, facts, config = result.rows, result.facts, result.config
    pairs = [_pair(p, clips.get(p["pair"], [])) for p in facts["pairs"]]
    return render(
        "patching.html",
        title=f"Activation patching: {config.task}",
        model=facts["model"], config=config, versions=facts["versions"], pairs=pairs,
        headline=summary.headline(rows),
        sections=_sections(rows, facts, config), exact=exact_controls(rows, config.direction),
        best=summary.best_cells(rows), table=summary.table(rows),
        against=summary.against_controls(rows), command=facts["command"],
        block_calls=facts["block_calls"], block_calls_minimum=facts["block_calls_minimum"],
    )  # fmt: skip


SPANS = {"single": "single steps", "from": "from step k on", "until": "up to step k"}


def _pair(facts: dict[str, Any], clips: list[tuple[str, str, bytes]]) -> dict[str, Any]:
    shown = [{"name": name, "text": text, "uri": data_uri(mp4, "video/mp4")} for name, text, mp4 in clips]
    return {**facts, "key": facts["pair"], "clips": shown}


def _sections(rows: pd.DataFrame, facts: dict[str, Any], config: dict[str, Any]) -> list[dict[str, Any]]:
    """One section a (pair kind, site); with single heads or frames, one for each of them."""
    out = []
    main = summary.main_rows(rows)
    for (kind, site, head, frame), at in main.groupby(["pair_kind", "site", "head", "frame"], dropna=False, sort=False):
        if at.layer.isna().all():
            continue
        sigmas = dict(zip(at.step.astype(int), at.sigma, strict=True))
        maps = [(group, summary.map_of(part, "effect")) for group, part in at.groupby("group", sort=False)]
        flips = [(group, summary.map_of(part, "flipped")) for group, part in at.groupby("group", sort=False)]
        limit = max(0.05, float(np.nanmax([np.abs(m.to_numpy(float)).max() for _, m in maps])))
        marks = [f"head {head}" if pd.notna(head) else "", f"latent frame {frame}" if pd.notna(frame) else ""]
        whole = rows[(rows.site == site) & (rows.pair_kind == kind) & (rows.group == "all")]
        controls = [(d, summary.map_of(p, "effect")) for d, p in whole[whole.donor != "self"].groupby("donor", sort=False)]
        some_flip = any(m.to_numpy(float).max() > 0 for _, m in flips)
        out.append({
            "title": " · ".join(filter(None, [f"{kind} pairs, {site}, {SPANS[at.span.iloc[0]]}", *marks])),
            "n": at.pair.nunique(),
            "effect": drawing(figures.heat_maps(maps, sigmas, "effect", limit)),
            "flips": drawing(figures.heat_maps(flips, sigmas, "share", share=True)) if some_flip else "",
            "controls": drawing(figures.heat_maps(controls, sigmas, "effect", limit)) if len(controls) > 1 else "",
            "profile": drawing(_profile(at, whole, facts, config, kind)),
        })  # fmt: skip
    return out


def _profile(at: pd.DataFrame, whole: pd.DataFrame, facts: dict[str, Any], config: dict[str, Any], kind: str) -> str:
    base = at[at.group == "all"] if (at.group == "all").any() else at
    curves = [("clean donor", summary.profile(base))]
    for donor, part in whole.groupby("donor", sort=False):
        if donor in ("random", "same_answer"):
            curves.append((f"{donor.replace('_', '-')} donor", summary.profile(part)))
    steps = [int(k) for k in curves[0][1].step]
    sigmas = next(p["sigmas"] for p in facts["pairs"] if p["kind"] == kind)
    return figures.profiles(curves, summary.expected(sigmas, steps, at.span.iloc[0]), steps)


def exact_controls(rows: pd.DataFrame, direction: str) -> list[dict[str, Any]]:
    """Controls whose value is known: donor = self leaves the receiving run as it is; all of x_t from a run with the same
    condition turns it into that run. When noising, the receiving run is the clean one, whose effect is 1."""
    out = []
    stays, turns = (0.0, 1.0) if direction == "denoising" else (1.0, 0.0)
    whole = rows[(rows.donor == "clean") & (rows.site == "hook_x_t") & (rows.group == "all") & (rows.pair_kind == "seed")]
    for name, must, at in (
        ("donor = the receiving run itself", stays, rows[rows.donor == "self"]),
        ("all of x_t between two noises of one item", turns, whole),
    ):
        if len(at):
            low, high = float(at.effect.min()), float(at.effect.max())
            ok = low == high == must
            out.append({"name": name, "must": f"exactly {must:g}", "low": low, "high": high, "n": len(at), "ok": ok})
    return out


def report(result: AnalysisResult, store: RunStore) -> Report:
    names = dict.fromkeys(unit.rsplit("-step-", 1)[0] for unit in result.units)
    result.facts["pairs"] = [store.unit(f"{name}-pair")[1] for name in names]
    shown = clips(result, store)
    media = {f"{pair}-{name.replace(' ', '-')}.mp4": mp4 for pair, each in shown.items() for name, _, mp4 in each}
    lines = headline(result.rows)
    return Report(
        lines,
        {"headline": lines, "table": table(result.rows), "against_controls": against_controls(result.rows)},
        build(result, shown),
        media,
    )
