"""How often the impossible clip surprises more, beside baselines without a model, and the page."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import PairedShares, Share
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.statistics import curve
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.verdicts import whole
from cos_interp.analyses.plausibility import PairFacts, PlausibilityConfig
from cos_interp.reports.figures import Curve, Panel, panels, step_ticks

QUESTION = (
    "Is what cannot happen more surprising than what can? Two clips share prompt, picture and noise and part at one moment, "
    "after which one goes on as it must not. Surprise is the loss with which the model denoises a clip, at the same noise for "
    "both."
)
SOURCE = "2606.05328 (IntPhys by inversion); equal noise, baselines and twins are this project's"
BASELINES = {"autoencoder": "the autoencoder alone", "noise": "the size of latents alone"}
SHOWN = 2  # pairs of each task


def outcomes(rows: pd.DataFrame) -> pd.DataFrame:
    """By pair: whether the impossible clip surprises more, of the model and of each baseline, mean over steps and noises.
    Pairs of which a loss is missing are left out, and those of one clip twice, in which neither can surprise more."""
    means = rows.groupby(["problem", "kind"], sort=False)[["possible", "impossible"]].agg(whole)
    known = means.notna().all(axis=1) & ~alike(means)
    return (means.impossible > means.possible).astype(float).where(known).unstack("kind").dropna()


def alike(means: pd.DataFrame) -> pd.Series:
    """Whether a row is of a pair whose clips have the same loss by the model and by every baseline: they are one clip."""
    return (means.impossible == means.possible).groupby("problem").transform("all")


def better(found: pd.DataFrame) -> str:
    """The baseline that is right more often."""
    return max(BASELINES, key=lambda name: found[name].mean())


def findings(result: AnalysisResult, rows: pd.DataFrame) -> list[Finding]:
    found = outcomes(rows)
    best = better(found)
    said = (
        f"the impossible clip has the larger loss in {Share(found.model).number()} of the pairs, for "
        f"{BASELINES['autoencoder']} in {Share(found.autoencoder).number()}, by {BASELINES['noise']} in "
        f"{Share(found.noise).number()}; more than the better one by"
    )
    estimate = PairedShares(found.model, found[best])
    placebo = len(rows) and alike(rows.set_index("problem")).all()
    unfit = "the two clips of every pair are the same" if placebo else None
    return [result.judge("plausibility.surprise", estimate, said, Share(found[best]).number(), unfit)]


def report(result: AnalysisResult[PlausibilityConfig], store: RunStore) -> Report:
    rows = result.rows
    if rows.empty:
        section = pages.Section("Surprise", caption="No item leaves room for an impossible clip: give more items.")
        return pages.build(result, "Plausibility", QUESTION, SOURCE, [], [section])
    sections = [_along(rows, result.sigmas), _pairs(result, rows), *_clips(result, store)]
    return pages.build(result, "Plausibility", QUESTION, SOURCE, findings(result, rows), sections)


def _along(rows: pd.DataFrame, sigmas: list[float]) -> pages.Section:
    by = rows[rows.kind != "autoencoder"].copy()
    by["more"], by["right"] = by.impossible - by.possible, (by.impossible > by.possible).astype(float)
    by = by.groupby(["problem", "task", "kind", "step"], as_index=False)[["more", "right"]].mean()
    own, guess = by[by.kind == "model"], by[by.kind == "noise"]
    tasks = [Curve(str(task), curve(part, "more")) for task, part in own.groupby("task", sort=False)]
    right = [Curve(str(task), curve(part, "right")) for task, part in own.groupby("task", sort=False)]
    ticks = {k: label for k, label in step_ticks(sigmas).items() if k in set(own.step)}
    made = [
        Panel("impossible minus possible", tasks, "step", "step, sigma", "loss", ticks),
        Panel("the impossible clip has the larger loss", [*right, Curve(BASELINES["noise"], curve(guess, "right"), "--")], "step",
              "step, sigma", "share of pairs", ticks, (-0.03, 1.03)),
    ]  # fmt: skip
    caption = f"{own.problem.nunique()} pairs, the same noises for both clips of each. Bands: 95 % intervals over pairs."
    return pages.Section("Surprise along the noise levels", panels(made), caption)


def _pairs(result: AnalysisResult, rows: pd.DataFrame) -> pages.Section:
    means = rows.groupby(["problem", "kind"], sort=False)[["possible", "impossible"]].mean().unstack("kind")
    broken = {name: facts.broken for name, facts in result.units_of(PairFacts).items()}
    more = means.impossible - means.possible
    table = pd.DataFrame({
        "pair": more.index, "broken": [broken[str(name)] for name in more.index],
        "loss, possible": means.possible["model"].to_numpy(), "loss, impossible": means.impossible["model"].to_numpy(),
        **{f"{told}: impossible minus possible": more[kind].to_numpy() for kind, told in BASELINES.items()},
    })  # fmt: skip
    return pages.Section("The pairs", caption="Mean over steps and noises.", table=table)


def _clips(result: AnalysisResult, store: RunStore) -> Iterator[pages.Section]:
    shown: dict[str, int] = {}
    tasks = result.rows.groupby("problem", sort=False).task.first()
    for unit, facts in result.units_of(PairFacts).items():
        task = str(tasks[unit])
        if shown.setdefault(task, 0) == SHOWN:
            continue
        shown[task] += 1
        held = store.tensors(unit)
        clips = torch.stack([held["possible"], held["impossible"]]).numpy()
        reel = pages.Reel("pair", facts.broken, clips, [pages.Shown("possible"), pages.Shown("impossible")])
        yield pages.Section(unit, caption=f"“{facts.prompt}”. {facts.broken}".strip(), reels=[reel])
