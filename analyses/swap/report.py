"""What the representation swap found: flip rates and effects by layer, against their controls. Knows rows, not models."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean, Share
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.facts import LeftOut
from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.kept import kept_clips, videos
from cos_interp.analyses.driver.statistics import curve, items_each, points, remaining_share
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.swap import WHEN, label
from cos_interp.analyses.swap.findings import findings, middle_layer
from cos_interp.interp.errors import InterpError
from cos_interp.reports.figures import Curve, Panel, matrix_maps, panels

TITLE = "Representation swap"
SOURCE = "CoS section 5.2, figure 6b"
QUESTION = (
    "Which layer carries what the answer is about? Two runs start from the same noise and differ in the prompt or in the first "
    "frame. The visual tokens of one (the donor) are put into the other (the target) in one layer, at one step, from it on or at "
    "all steps, and the target is finished. Flipped: the video then gives the donor's answer. Effect: how far the final latent "
    "moved to the donor's, 0 not at all, 1 all the way."
)
VIDEOS = (
    "The run that receives, the one that gives, and the swap of all tokens in the middle layer, with a random item's tokens "
    "beside it. Table: whose answer each gives, of every pair; those with a link have their videos here."
)
GROUPS = {"all": "all tokens", "object": "object's tokens", "random": "as many other tokens"}


def flip_curve(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns ``layer, mean, low, high, n``: share of pairs that flipped at each layer, with its exact interval."""
    return points({layer: Share(part.flipped.astype(float)).number() for layer, part in rows.groupby("layer")}, "layer")


def main_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The paper's own swap: block output of all tokens (the first variant without it), at the first asked step."""
    return _main_variant(_first_step(rows))


def _main_variant(rows: pd.DataFrame) -> pd.DataFrame:
    variant = "block" if (rows.variant == "block").any() else rows.variant.iloc[0]
    return rows[(rows.variant == variant) & (rows.group == "all")]


def share_note(rows: pd.DataFrame, sigmas: list[float]) -> str:
    """The trap of single-step swaps, with this run's numbers."""
    main = main_rows(rows)
    own = main[main.donor == "pair"]
    step = int(own.step.iloc[0])
    share, effect = remaining_share(sigmas, step), Mean(own.groupby("problem").effect.mean()).number()
    return (
        f"Every step reads the prompt and the first frame again. A model that only did that would show an effect of {share:.3f} "
        f"for a swap at step {step}, the step's share of the sigma path that is left, in every layer; measured, mean over "
        f"layers: {_fine(effect)}. A small effect of one step therefore does not mean that a layer is unimportant."
    )


def self_note(rows: pd.DataFrame) -> str:
    """Raises InterpError when a run given its own tokens did not stay as it was: then no number here can be trusted."""
    own = rows[rows.donor == "self"]
    wrong = own[own.effect != 0]
    if len(wrong):
        bad = wrong.iloc[0]
        raise InterpError(
            f"a run given its own tokens ({bad.variant}, layer {bad.layer}, step {bad.step}) moved by {bad.effect:.2e} instead "
            "of exactly 0: the model is not deterministic here; run it in a deterministic mode"
        )
    return f"Donor = the run itself: exactly 0 in all {len(own)} swaps."


def missing_notes(result: AnalysisResult) -> list[str]:
    """One line for each reason why pairs are missing."""
    reasons = pd.Series([left.reason for left in result.units_of(LeftOut).values()], dtype=object)
    return [f"{count} pair(s) left out: {reason}" for reason, count in reasons.value_counts(sort=False).items()]


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows, notes = result.rows, missing_notes(result)
    if rows.empty:
        return pages.build(result, TITLE, QUESTION, SOURCE, findings(result, rows), [], notes)
    sigmas = [*result.sigmas, 0.0]
    single = rows[rows.span == "single"]
    notes = [self_note(rows), *([share_note(single, sigmas)] if len(single) else []), *notes]
    if rows.flipped.isna().all():
        notes.append("Nobody judges these videos (--scorer): there is an effect on the final latent but no flip rate.")
    by_step = [part for _, part in single.groupby("step", sort=False)]
    sections = [
        _spans(rows), *[section for part in by_step for section in (*_flips(part), _effects(part, sigmas), _controls(part))],
        *_steps(single), _table(rows), *_videos(result, store),
    ]  # fmt: skip
    return pages.build(result, TITLE, QUESTION, SOURCE, findings(result, rows), sections, notes, ("cause",))


def _spans(rows: pd.DataFrame) -> pages.Section:
    """Swaps that last for one step, from a step on and throughout, side by side."""
    main = _main_variant(rows)
    judged, made = main[main.flipped.notna()], []
    for title, value, part in (("share flipped", "flipped", judged), ("effect", "effect", main)):
        curves = []
        for (span, step, donor), own in part[part.donor.isin(["pair", "random item"])].groupby(
            ["span", "step", "donor"], sort=False
        ):
            line = flip_curve(own) if value == "flipped" else curve(own, value, "layer")
            curves.append(Curve(f"{WHEN[span].format(step=step)}, {donor}", line, "-" if donor == "pair" else ":"))
        if curves:
            made.append(Panel(f"{main.variant.iloc[0]}, {title}", curves, ylabel=title, **_axis(part)))
    caption = (
        f"All tokens, {rows.problem.nunique()} pairs. Bands: exact 95 % interval of a share, 95 % interval of an effect. At "
        "every step, what comes after the layer reads the donor's state: the last layer gives the donor's run by construction."
    )
    return pages.Section("One step, from a step on, every step", panels(made), caption)


def _axis(rows: pd.DataFrame) -> dict:
    return {"along": "layer", "xlabel": "layer", "ticks": {int(k): str(k) for k in sorted(rows.layer.unique())}}


def _first_step(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows.step == rows.step.iloc[0]]


def _flips(rows: pd.DataFrame) -> list[pages.Section]:
    if rows.flipped.isna().all():
        return []
    judged = _first_step(rows[rows.flipped.notna()])
    main = main_rows(judged)
    own = judged[(judged.donor == "pair") & (judged.group == "all")]
    by_donor = [Curve(str(d), flip_curve(p)) for d, p in main.groupby("donor", sort=False) if d != "self"]
    by_variant = [Curve(str(v), flip_curve(p)) for v, p in own.groupby("variant", sort=False)]
    share = {**_axis(judged), "ylabel": "share flipped", "bounds": (-0.03, 1.03)}
    figure = panels([
        Panel(f"{main.variant.iloc[0]}, by donor", by_donor, **share), Panel("by variant, donor: pair", by_variant, **share),
    ])  # fmt: skip
    caption = (
        f"All tokens, step {main.step.iloc[0]} (sigma {main.sigma.iloc[0]:.2f}). Share of pairs whose video gives the answer of "
        f"the pair's donor; bands: exact 95 % interval over {main.problem.nunique()} pairs. With tokens of another donor the "
        "same answer can only come by accident."
    )
    return [pages.Section(f"Flip rate by layer, step {main.step.iloc[0]}", figure, caption)]


def _effects(rows: pd.DataFrame, sigmas: list[float]) -> pages.Section:
    now = _first_step(rows)
    own = now[now.donor == "pair"]
    step = int(own.step.iloc[0])
    made = []
    for group, part in own.groupby("group", sort=False):
        curves = [Curve(str(v), curve(p, "effect", "layer")) for v, p in part.groupby("variant", sort=False)]
        made.append(Panel(GROUPS[str(group)], curves, ylabel="effect", **_axis(own)))
    caption = (
        f"Step {step} (sigma {own.sigma.iloc[0]:.2f}), mean over {own.problem.nunique()} pairs, 95 % interval; mind the scales. "
        f"A model that only reads its condition again at every step would show {remaining_share(sigmas, step):.3f} with all "
        "tokens, in every layer."
    )
    return pages.Section(f"Effect by layer, step {step}", panels(made), caption)


def _controls(rows: pd.DataFrame) -> pages.Section:
    now = _first_step(rows)
    main = main_rows(rows)
    by_donor = [Curve(str(d), curve(p, "effect", "layer")) for d, p in main.groupby("donor", sort=False) if d != "self"]
    own = now[(now.donor == "pair") & (now.group == "all") & (now.variant == main.variant.iloc[0])]
    kinds = [Curve(str(k), curve(p, "effect", "layer")) for k, p in own.groupby("kind", sort=False)]
    axis = {**_axis(now), "ylabel": "effect"}
    figure = panels([Panel("by donor", by_donor, **axis), Panel("by kind of pair", kinds, **axis)])
    caption = (
        "Donors of the controls: another item from the same noise, and the target's own problem from another noise (for the "
        "tasks one with the same answer). Effects are along the direction from the target to the pair's donor."
    )
    return pages.Section(f"Controls, step {main.step.iloc[0]}", figure, caption)


def _steps(rows: pd.DataFrame) -> list[pages.Section]:
    """Layer x step maps, where several steps were asked for."""
    own = rows[(rows.donor == "pair") & (rows.group == "all")]
    if own.step.nunique() < 2:
        return []
    names = {k: f"{k}\n{part.sigma.iloc[0]:.2f}" for k, part in own.groupby("step")}
    maps = [(str(v), _pivot(p, "effect")) for v, p in own.groupby("variant", sort=False)]
    figure = matrix_maps(maps, "step, sigma", "layer", "effect", diverging=True, xticks=names)
    return [pages.Section("By step", figure, "All tokens.", of=items_each(own, ["variant", "layer", "step"]))]


def _pivot(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    return rows.groupby(["layer", "step"])[value].mean().unstack()


def _table(rows: pd.DataFrame) -> pages.Section:
    """Per variant, token set, donor and step: mean over layers, and the strongest layer."""
    out = []
    for (span, step, variant, group, donor), part in rows.groupby(["span", "step", "variant", "group", "donor"], sort=False):
        by_layer = part.groupby("layer").effect.mean()
        row = {
            "swapped at": WHEN[span].format(step=step).removeprefix("at "),
            "sigma": round(part.sigma.iloc[0], 3),
            "swapped": variant,
            "tokens": GROUPS[group],
            "donor": donor,
        }
        row |= {"pairs": part.problem.nunique(), "effect": _fine(Mean(part.groupby("problem").effect.mean()).number())}
        best = int(by_layer.abs().idxmax())
        out.append({**row, "strongest layer": best, "effect there": f"{by_layer[best]:.4f}", "flipped": _flipped(part)})
    caption = "Effect: mean over layers and pairs. Flipped: share of all swaps of the line."
    return pages.Section("All swaps", caption=caption, table=pd.DataFrame(out))


def _fine(number: Number) -> str:
    """A number with the digits that effects of one step need."""
    interval = f" [{number.low:.4f}, {number.high:.4f}]" if number.low == number.low else ""
    return f"{number.value:.4f}{interval}"


def _flipped(part: pd.DataFrame) -> float:
    return float(part.flipped.astype(float).mean()) if part.flipped.notna().any() else np.nan


def _videos(result: AnalysisResult, store: RunStore) -> list[pages.Section]:
    """Both runs of a pair and the swaps of the middle layer, and what is read in those of every pair."""
    rows, reels = result.rows, [one.reel(say={"effect": "effect"}, at=_place) for one in kept_clips(result, store)]
    main = _main_variant(rows)
    table = videos(main[main.layer == middle_layer(main)], label, reels)
    return [pages.Section("Videos", caption=VIDEOS, reels=reels, table=table)] if reels or table is not None else []


def _place(name: str, row: Row) -> dict[str, str | int]:
    return {"layer": int(row["layer"]), "step": int(row["step"])} if row else {}
