"""The page of a patching run. Knows rows, not models."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.facts import LeftOut
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.grid import EVERYWHERE, SELF, X_T
from cos_interp.analyses.patching import PairFacts, PatchingConfig, map_page, summary
from cos_interp.analyses.patching.blocks import PLACE, change, split
from cos_interp.analyses.patching.explore import OWN, RANDOM, by_donor, cells
from cos_interp.analyses.patching.findings import findings
from cos_interp.analyses.patching.media import reels
from cos_interp.reports import figures
from cos_interp.reports.drawing import Drawing, Maps

QUESTION = (
    "At which denoising step, in which layer and in which tokens is the answer decided? Two runs with different answers are "
    "recorded. Activations of one are put into the other at one place, the run is finished, and the result is compared: effect "
    "0, the patch did nothing; 1, the final latent moved all the way along the difference of the two runs. The verifier reads "
    "from the decoded frames whose answer the patched video gives."
)
SOURCE = "CoS section 5.2; activation patching between counterfactual pairs"
TOLERANCE = 1e-6  # of the norm of a final latent, for rows that share a forward, in float32
SPANS = {"single": "single steps", "from": "from step k on", "until": "up to step k"}
NO_VERIFIER = "These pairs have no verifier: there is an effect on the final latent, but nobody says whose answer a video gives."
EFFECT = (
    "Mean effect over {n} pairs, by layer (up) and step (right, with its sigma), one map a token group: 'all' are all tokens, "
    "the others are disjoint groups of the receiving run's grid cells, in all latent frames."
)
BY_TOKENS = (
    "Mean effect over {n} pairs, by layer (up) and token group (right), of a patch in {steps}: of the pair's own donor, and of a "
    "random item's tokens in the same cells. Groups are disjoint sets of the receiving run's grid cells, in all latent frames."
)
READINGS = (
    "The same cells, read from the decoded video, over {n} pairs. Strict: the share of pairs of which every cell of every frame "
    "reads as the donor's answer. Graded: how much of an answer the last frame shows in the cells in which the two answers end "
    "differently (trail on a route; the place of an object), however the rest reads: of the donor's, and of the run's own."
)
GRADED = (
    "How much of the donor's answer the last frame shows in the cells in which the two answers end differently: mean over pairs."
)
FLIPS = "Share of pairs whose patched video gives the donor's answer, read by the verifier."
DONORS = (
    "The controls on all tokens, on the scale of the effects above: the clean donor, the donor of a random other item, and "
    "another noise with the receiving run's own answer (of pairs from a file: with its own prompt)."
)
PROFILE = (
    "Effect of patching all tokens by step, averaged over layers, with 95 % bands over pairs. Dashed: what a run "
    "that merely re-reads its condition at every step would show. Only the difference from it is commitment."
)
AGAINST = (
    "Random: a run of another item; same answer: a run of the receiving item from another noise with the same answer. Means over "
    "the cells of a pair that both donors have, with the 95 % interval of the difference over pairs (bootstrap-t). A group acts "
    "by what its tokens say, not by being disturbed, where the difference is away from 0."
)
NUMBERS = (
    "The effect is averaged over the cells of a pair, its interval is over pairs (bootstrap-t); with one pair there is none. "
    "Shown: the graded reading. The interval of flipped pairs is Clopper and Pearson's. Final latents of all runs: shards/."
)
BEST = (
    "The largest of all cells on these very pairs, so too high; the finding above chooses on other pairs. An effect near 1 can "
    "go with 'other' or 'undecided': the plan moved, and some cell does not read."
)
PAIRS = (
    "A pair is the first of its candidate items (test split, drawn by seed) that the model solves on both sides; of prompt and "
    "image pairs, unless --no-unique was said, the first with one right answer on either side."
)


def report(result: AnalysisResult, store: RunStore) -> Report:
    if result.config.method == "gradient":
        return map_page.page(result)
    cells, of_blocks = split(result.rows)
    return page(replace(result, rows=cells), reels(replace(result, rows=cells), store, pairs_of(result)), of_blocks)


def pairs_of(result: AnalysisResult) -> list[PairFacts]:
    """What the run says of each of its pairs, without those that were left out."""
    return list(result.units_of(PairFacts).values())


def page(result: AnalysisResult, shown: Sequence[pages.Reel], of_blocks: pd.DataFrame | None = None) -> Report:
    config, pairs = result.config, pairs_of(result)
    title = f"Activation patching: {config.task if config.pair_file is None else 'own pairs'}"
    found = findings(result)
    if result.rows.empty:
        return pages.build(result, title, QUESTION, SOURCE, found, [], missing_notes(result))
    rows = summary.counted(result.rows)
    coarse = [] if of_blocks is None or of_blocks.empty else [_blocks(of_blocks, config)]
    notes = [*summary.headline(rows), *missing_notes(result), cost_note(result.facts), *(one.caption for one in coarse)]
    if rows.outcome.isna().all():
        notes.append(NO_VERIFIER)
    whole = [pair.pair for pair in pairs if pair.whole_state]
    sections = [
        *_maps(rows, pairs, shown), *coarse, _exact(exact_controls(result.rows, config.direction, whole)), _best(rows),
        *_against(rows), _numbers(rows),
        pages.Section("The pairs", caption=PAIRS if config.pair_file is None else "", table=_pairs(pairs, shown), reels=shown),
    ]  # fmt: skip
    made = pages.build(result, title, QUESTION, SOURCE, found, sections, notes, ("cause",))
    tables = {"table": summary.table(rows), "against_controls": summary.against_controls(rows)}
    return replace(made, data={**made.data, "headline": summary.headline(rows), **tables})


def missing_notes(result: AnalysisResult) -> list[str]:
    """One line for each reason why pairs are missing, with their names."""
    missing: dict[str, list[str]] = {}
    for name, left in result.units_of(LeftOut).items():
        missing.setdefault(left.reason, []).append(name.removesuffix("-pair"))
    return [f"{len(names)} pair(s) left out, {', '.join(names)}: {reason}" for reason, names in missing.items()]


def cost_note(facts: dict[str, Any]) -> str:
    ran, least = facts["block_calls"], facts["block_calls_minimum"]
    verdict = "minimal" if ran == least else "not minimal"
    return f"{ran} transformer blocks were run for the grid; the exact minimum is {least}: {verdict}.{_rounding(facts)}"


def _rounding(facts: dict[str, Any]) -> str:
    """What rows that shared a forward lost by it, measured in this run, against what was promised."""
    if (found := facts.get("rounding")) is None:
        return ""
    held = "as it should be" if found <= TOLERANCE else "more than that: use --batch 1 where it matters"
    rows, allowed = facts["config"]["batch"], f"{TOLERANCE:.0e} is allowed in float32"
    measured = f"one a step, finished alone as well, differs by at most {found:.1e} of its norm ({allowed}): {held}."
    return f" Up to {rows} rows shared a forward: {measured}"


# --- figures ---------------------------------------------------------------------------------------------------------


def _maps(rows: pd.DataFrame, pairs: list[PairFacts], reels: Sequence[pages.Reel]) -> list[pages.Section]:
    """The figures of each (pair kind, site, range of steps); with single heads or frames, of each of them."""
    out = []
    keys = ["pair_kind", "site", "span", "head", "frame"]
    for (kind, site, span, head, frame), at in summary.main_rows(rows).groupby(keys, dropna=False, sort=False):
        if at.layer.isna().all():
            continue
        marks = [f"head {head}" if pd.notna(head) else "", f"latent frame {frame}" if pd.notna(frame) else ""]
        name = ", ".join(filter(None, [f"{kind} pairs", *marks, site, SPANS[span]]))
        here = rows[(rows.site == site) & (rows.pair_kind == kind) & (rows.span == span) & (rows.donor != SELF)]
        sigmas = next(pair.sigmas for pair in pairs if pair.kind == kind)
        one = at.step.nunique() == 1
        out += _by_tokens(name, at, here, reels) if one else _figures(name, at, here, sigmas, reels)
    return out


def _by_tokens(name: str, at: pd.DataFrame, here: pd.DataFrame, reels: Sequence[pages.Reel]) -> list[pages.Section]:
    """Layer x token group, for patches that all begin (or end) at one step: effects, and below them what the videos show."""
    table = lambda rows, value: summary.map_of(rows, value, "group").rename(columns=lambda group: group.replace("_", "\n"))
    step, n = f"step {int(at.step.iloc[0])} (sigma {at.sigma.iloc[0]:.2f})", at.pair.nunique()
    steps = {"single": f"{step} alone", "from": f"{step} and all later ones", "until": f"all steps up to {step}"}[at.span.iloc[0]]
    random = here[(here.donor == "random") & here["head"].isna()]
    maps = [(OWN, table(at, "effect"))] + ([(RANDOM, table(random, "effect"))] if len(random) else [])
    told = by_donor(cells(at, random, reels), random)
    figure = figures.matrix_maps(maps, "tokens", "layer", "effect", diverging=True).explored(told)
    out = [pages.Section(f"Effect: {name}", figure, BY_TOKENS.format(n=n, steps=steps))]
    if at.outcome.notna().all():
        read = {"flipped": "strict: donor's answer"}
        if at.donor_shown.notna().any():  # of the tasks' items
            read |= {"donor_shown": "graded: donor's", "target_shown": "graded: its own"}
        maps = [(title, table(at, value)) for value, title in read.items()]
        figure = _by_name(figures.matrix_maps(maps, "tokens", "layer", "share", (0, 1)))
        out.append(pages.Section(f"Read from the video: {name}", figure, READINGS.format(n=n)))
    return out


def _by_name(figure: Drawing) -> Drawing:
    """A figure with the token groups by the names by which the figures are linked."""
    assert isinstance(figure.shown, Maps)
    cells = figure.shown.cells
    return figure.explored(cells.assign(tokens=cells.tokens.str.replace("\n", "_")))


def _figures(
    name: str, at: pd.DataFrame, here: pd.DataFrame, sigmas: Sequence[float], reels: Sequence[pages.Reel]
) -> list[pages.Section]:
    """Effects, flips and controls as maps, and the profile over steps. ``here``: cells of all donors."""
    whole, random = here[here.group == EVERYWHERE], here[(here.donor == "random") & here["head"].isna() & here.frame.isna()]
    ticks = dict(zip(at.step.astype(int), at.sigma, strict=True))
    maps, flips = ([(g, summary.map_of(p, v)) for g, p in at.groupby("group", sort=False)] for v in ("effect", "flipped"))
    limit = max(0.05, float(np.nanmax([np.abs(m.to_numpy(float)).max() for _, m in maps])))
    figure = figures.heat_maps(maps, ticks, "effect", limit, panel="tokens").explored(cells(at, random, reels))
    out, of = [pages.Section(f"Effect: {name}", figure, EFFECT.format(n=at.pair.nunique()))], [at.pair.nunique()]
    if any(m.to_numpy(float).max() > 0 for _, m in flips):
        out.append(
            pages.Section(f"Flips: {name}", figures.heat_maps(flips, ticks, "share", share=True, panel="tokens"), FLIPS, of=of)
        )
    if at.donor_shown.notna().any():
        shown = [(group, summary.map_of(part, "donor_shown")) for group, part in at.groupby("group", sort=False)]
        figure = figures.heat_maps(shown, ticks, "share", share=True, panel="tokens")
        out.append(pages.Section(f"Shown: {name}", figure, GRADED, of=of))
    controls = [(donor, summary.map_of(part, "effect")) for donor, part in whole.groupby("donor", sort=False)]
    if len(controls) > 1:
        out.append(pages.Section(f"Controls: {name}", figures.heat_maps(controls, ticks, "effect", limit), DONORS, of=of))
    base = at[at.group == EVERYWHERE] if (at.group == EVERYWHERE).any() else at
    curves = [("clean donor", summary.profile(base))]
    others = whole[whole.donor != "clean"].groupby("donor", sort=True)
    curves += [(f"{donor.replace('_', '-')} donor", summary.profile(part)) for donor, part in others]
    steps = [int(k) for k in curves[0][1].step]
    figure = figures.profiles(curves, summary.expected(sigmas, steps, at.span.iloc[0]), steps)
    return [*out, pages.Section(f"By step: {name}", figure, PROFILE)]


# --- tables ----------------------------------------------------------------------------------------------------------


def exact_controls(rows: pd.DataFrame, direction: str, whole: Collection[str]) -> list[dict[str, Any]]:
    """Controls whose value is known: donor = self leaves the receiving run as it is; all of x_t from a run with the same
    condition (in the pairs ``whole``) turns it into that run. When noising, the clean run receives, whose effect is 1."""
    out = []
    stays, turns = (0.0, 1.0) if direction == "denoising" else (1.0, 0.0)
    state = rows[(rows.donor == "clean") & (rows.site == X_T) & (rows.group == EVERYWHERE) & rows.pair.isin(whole)]
    for name, must, at in (
        ("donor = the receiving run itself", stays, rows[rows.donor == SELF]),
        ("all of x_t between two noises of one item", turns, state[state.frame.isna()]),
    ):
        if len(at):
            low, high = float(at.effect.min()), float(at.effect.max())
            ok = low == high == must
            out.append({"name": name, "must": f"exactly {must:g}", "low": low, "high": high, "n": len(at), "ok": ok})
    return out


def _blocks(rows: pd.DataFrame, config: PatchingConfig) -> pages.Section:
    """What was looked at in blocks, and of which the cells were not finished."""
    rows = rows.assign(size=change(rows, config).abs())
    table = []
    for (kind, site, group, step, layer), at in rows.groupby(PLACE, sort=False, dropna=False):
        first, layers = at.iloc[0], "" if pd.isna(layer) else f"{layer} to {at.iloc[0].last_layer}"
        effect = summary.over_pairs(at, "effect")
        table.append({
            "pairs": kind, "site": site, "tokens": group, "steps": f"{step} to {first.last_step}", "layers": layers,
            "n pairs": at.pair.nunique(), "mean effect": str(effect), "largest": f"{at['size'].max():.3f}",
            "its cells": "finished" if bool(first.refined) else "not finished",
        })  # fmt: skip
    left = sum(row["its cells"] != "finished" for row in table)
    caption = (
        f"Coarse to fine: {len(table)} blocks of steps and layers were patched as one, and the cells of {len(table) - left} were "
        f"finished, in which some pair moved by more than {config.refine:g}. The cells of the other {left} are not on this page: "
        "as blocks they moved no pair more than that. Effects that cancel inside a block do not show."
    )
    return pages.Section("What was looked at in blocks", caption=caption, table=pd.DataFrame(table))


def _exact(found: list[dict[str, Any]]) -> pages.Section:
    rows = [
        {
            "control": c["name"], "must be": c["must"], "measured, smallest": repr(c["low"]), "largest": repr(c["high"]),
            "cells": c["n"], "outcome": "holds" if c["ok"] else "broken",
        }
        for c in found
    ]  # fmt: skip
    return pages.Section("The controls that must hold exactly", table=pd.DataFrame(rows))


def _interval(low: float, high: float, digits: int = 2) -> str:
    return "–" if low != low else f"{low:.{digits}f} to {high:.{digits}f}"


def _share(value: float) -> str:
    return "–" if value != value else f"{100 * value:.1f} %"


def _best(rows: pd.DataFrame) -> pages.Section:
    table = [
        {
            "pairs": r["pair_kind"], "site": r["site"], "tokens": r["group"], "step": r["step"], "sigma": f"{r['sigma']:.3f}",
            "layer": r["layer"], "effect": str(r["effect"]),
            **{f"reads: {name}": "–" if r["said"] is None else r["said"][name] for name in summary.OUTCOMES},
            "donor's answer shown": str(r["donor_shown"]), "own answer shown": str(r["target_shown"]),
        }
        for r in summary.best_cells(rows)
    ]  # fmt: skip
    return pages.Section("The largest effects", caption=BEST, table=pd.DataFrame(table))


def _against(rows: pd.DataFrame) -> list[pages.Section]:
    table = [
        {
            "pairs": r["pair_kind"], "site": r["site"], "tokens": r["group"], "other donor": r["donor"].replace("_", " "),
            "n pairs": r["pairs"], "n cells": r["cells"], "effect": f"{r['effect']:.3f}",
            "other donor's effect": f"{r['control']:.3f}", "difference": f"{r['difference']:.3f}",
            "95 %": _interval(r["low"], r["high"], 3), "flips": _share(r["flipped"]),
            "other donor's flips": _share(r["control_flipped"]),
        }
        for r in summary.against_controls(rows)
    ]  # fmt: skip
    title = "The pair's donor against other donors, in the same cells"
    return [pages.Section(title, caption=AGAINST, table=pd.DataFrame(table))] if table else []


def _numbers(rows: pd.DataFrame) -> pages.Section:
    table = [
        {
            "pairs": r["pair_kind"], "site": r["site"], "donor": r["donor"], "tokens": r["group"], "n pairs": r["pairs"],
            "n cells": r["cells"], "mean effect": f"{r['effect']:.3f}", "95 %": _interval(r["low"], r["high"]),
            "donor's shown": r["donor_shown"], "own shown": r["target_shown"],
            "largest": r["largest"], "cells flipped": _share(r["flipped_cells"]),
            "cells undecided": _share(r["undecided_cells"]), "pairs flipped": r["flipped_pairs"],
            "95 % of these": _interval(r["flip_low"], r["flip_high"]),
        }
        for r in summary.table(rows)
    ]  # fmt: skip
    return pages.Section("All numbers", caption=NUMBERS, table=pd.DataFrame(table))


def _pairs(pairs: list[PairFacts], reels: Sequence[pages.Reel]) -> pd.DataFrame:
    kept = {reel.name: [row.told for row in reel.rows if row.at] for reel in reels}
    flips = lambda told: (told["reads"] == "donor", told["effect"])
    read = {name: max(told, key=flips) for name, told in kept.items() if told}
    return pd.DataFrame([
        {
            "pair": pages.Link(pair.pair, pair.pair), "candidate": pair.tried, "corrupt": f"“{pair.corrupt.prompt}”",
            "its noise": pair.corrupt.seed, "clean": f"“{pair.clean.prompt}”", "noise": pair.clean.seed,
            "difficulty": pair.corrupt.difficulty, "controls": ", ".join(c for c in pair.controls if c != "clean"),
            **{f"kept patch: {what}": read.get(pair.pair, {}).get(what) for what in ("at", "effect", "reads")},
        }
        for pair in pairs
    ])  # fmt: skip
