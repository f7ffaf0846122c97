"""The page of the belief: how wide it is, how far from the exact posterior, how firmly x_t stands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.facts import LeftOut
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.kept import Kept, kept_clips, listed
from cos_interp.analyses.driver.statistics import curve
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.problems import spread
from cos_interp.analyses.posterior import PosteriorConfig, PosteriorFacts
from cos_interp.reports.figures import Curve, Panel, panels, step_ticks

QUESTION = (
    "A run could make several videos. What does the clean estimate of a step hold possible, and is that what an ideal observer "
    "of the noisy state, who knows the candidates and no model, would believe?"
)
SOURCE = "CoS section 3.1.1 (several candidates first, pruned later); the comparison with the exact posterior is this project's"
CONTROLS = {"none": "uniform", "sure": "sure of the likeliest", "other": "another noise's"}
VIDEOS = (
    "The clean estimate of a step beside the final video; bars: the weight of the answer that comes, by the estimate and by the "
    "exact posterior. Table: of every problem, total variation from the exact posterior, mean over the steps, and by how much "
    "the estimate is nearer than the nearest control; those with a link have their videos here."
)
SHOWN = 10  # standard deviations, beyond which nothing turns: without noise the margin has no end
LARGEST_LAG = 0.1  # of the run, up to which the two beliefs narrow together


def closer(rows: pd.DataFrame) -> pd.DataFrame:
    """By problem, means over the steps: ``apart``, each control, the ``nearest`` of these, and ``closer``, how much nearer to
    the posterior than it the model is."""
    found = rows.groupby("problem", sort=False)[["apart", *CONTROLS]].mean()
    nearest = found[list(CONTROLS)].min(axis=1, skipna=False)
    return found.assign(nearest=nearest, closer=nearest - found.apart)


def narrowed(rows: pd.DataFrame, value: str) -> pd.Series:
    """By problem: the first step from which a belief holds at most half of the candidates beyond one possible, to the end, as a
    share of the run; NaN where there is none."""
    wide = rows.assign(wide=rows[value] > (1 + rows.candidates) / 2).pivot_table("wide", "problem", "step", sort=True)
    since = wide.astype(bool).iloc[:, ::-1].cummax(axis=1).iloc[:, ::-1]
    first = since.sum(axis=1).astype(float)
    return first.where(first < wide.shape[1]) / wide.shape[1]


def lag_sizes(model: pd.Series, bayes: pd.Series) -> pd.DataFrame:
    """By problem: the size of the lag between two narrowings (``own``), and its mean over the posteriors of the other problems
    (``other``). The mean lag would be the same whichever problem's posterior an estimate is held against."""
    both = pd.DataFrame({"model": model, "bayes": bayes}).dropna()
    apart = np.abs(both.model.to_numpy()[:, None] - both.bayes.to_numpy()[None])
    own = np.diagonal(apart)
    other = (apart.sum(axis=1) - own) / max(len(both) - 1, 1)
    return pd.DataFrame({"own": own, "other": other}, index=both.index)


def findings(result: AnalysisResult[PosteriorConfig], rows: pd.DataFrame) -> list[Finding]:
    """Is the estimate nearer to the exact posterior than beliefs that use less of x_t; does it narrow when that does?"""
    found = closer(rows)
    lags = lag_sizes(narrowed(rows, "model"), narrowed(rows, "bayes"))
    exact = result.judge(
        "posterior.exact", Mean(found.closer),
        f"the estimate's weights of the candidates lie {Mean(found.apart).number()} from the exact posterior (total variation, "
        "mean over the steps); the nearest of the three controls lies further by",
        Mean(found.nearest).number(),
    )  # fmt: skip
    together = result.judge(
        "posterior.together", Mean(LARGEST_LAG - lags.own, bounds=(LARGEST_LAG - 1, LARGEST_LAG)),
        f"the estimate has halved its candidates earlier or later than the posterior by {Mean(lags.own, bounds=(0, 1)).number()} "
        f"of the run, and than another problem's posterior by {Mean(lags.other, bounds=(0, 1)).number()}; the bound minus the "
        "first is",
        Mean(LARGEST_LAG - lags.other, bounds=(LARGEST_LAG - 1, LARGEST_LAG)).number(),
    )  # fmt: skip
    return [exact, together]


def report(result: AnalysisResult[PosteriorConfig], store: RunStore) -> Report:
    rows = result.rows
    notes = [left.reason for left in result.units_of(LeftOut).values()]
    if rows.empty:
        section = pages.Section("Beliefs", caption="No problem has several videos that differ: there is nothing to choose.")
        return pages.build(result, "Posterior", QUESTION, SOURCE, [], [section], notes)
    sections = [
        _width(rows, result.sigmas), _apart(rows, result.sigmas), _margin(rows, result.sigmas), _videos(result, rows, store),
    ]  # fmt: skip
    return pages.build(result, "Posterior", QUESTION, SOURCE, findings(result, rows), sections, notes)


def _axis(sigmas: list[float]) -> dict:
    return {"along": "step", "xlabel": "step, sigma", "ticks": step_ticks(sigmas, 2)}


def _width(rows: pd.DataFrame, sigmas: list[float]) -> pages.Section:
    held = lambda part, value: curve(part, value, bounds=(1, float(part.candidates.max())))
    made = [
        Panel(str(task), [Curve("clean estimate", held(part, "model")), Curve("exact posterior", held(part, "bayes"), "--")],
              ylabel="effective candidates", bounds=(0.8, 1.25 * float(part.candidates.mean())), **_axis(sigmas))
        for task, part in rows.groupby("task", sort=False)
    ]  # fmt: skip
    caption = (
        "exp(entropy) of the estimate's weights (least squares on the candidates' latents, none negative) and of the exact "
        f"posterior from x_t with every candidate equally likely. {_count(rows)}"
    )
    return pages.Section("How many candidates are held possible", panels(made), caption, _table(rows))


def _apart(rows: pd.DataFrame, sigmas: list[float]) -> pages.Section:
    made = []
    for task, part in rows.groupby("task", sort=False):
        curves = [Curve("clean estimate", curve(part, "apart", bounds=(0, 1)))]
        curves += [Curve(name, curve(part, key, bounds=(0, 1)), "--") for key, name in CONTROLS.items()]
        made.append(Panel(str(task), curves, ylabel="total variation", bounds=(-0.03, 1.03), **_axis(sigmas)))
    caption = (
        "Distance from the exact posterior: 0 equal, 1 nothing in common. Dashed, beliefs that use less of x_t: all candidates "
        "alike, sure of the likeliest one, the posterior of a run of the same problem from another noise."
    )
    return pages.Section("How far from the exact posterior", panels(made), caption)


def _margin(rows: pd.DataFrame, sigmas: list[float]) -> pages.Section:
    margin = [Curve(str(task), curve(part, "margin")) for task, part in rows.groupby("task", sort=False)]
    named = [Curve("clean estimate", curve(rows, "named_model")), Curve("exact posterior", curve(rows, "named_bayes"), "--")]
    made = [
        Panel("x_t's distance from another answer", margin, ylabel="SD of the noise", bounds=(0, SHOWN), **_axis(sigmas)),
        Panel("the likeliest is the one that the run makes", named, ylabel="share", bounds=(-0.03, 1.03), **_axis(sigmas)),
    ]
    caption = (
        "Left: how far x_t stands from the nearest boundary at which the likeliest candidate changes, in standard deviations of "
        f"its noise, up to {SHOWN}. Right: how often the likeliest candidate is the one that the run ends with (by the verifier, "
        "or nearest)."
    )
    return pages.Section("Commitment", panels(made), caption)


def _videos(result: AnalysisResult[PosteriorConfig], rows: pd.DataFrame, store: RunStore) -> pages.Section:
    """Clean estimates along the steps with how many candidates they hold; every problem's distance from the posterior."""
    reels = [_reel(one) for one in kept_clips(result, store, PosteriorFacts)]
    named = {"apart": "distance from the posterior", "nearest": "of the nearest control", "closer": "nearer by"}
    told = closer(rows).rename(columns=named)[list(named.values())]
    return pages.Section("Estimates one by one", caption=VIDEOS, reels=reels, table=listed(told, rows, reels))


def _reel(one: Kept) -> pages.Reel:
    """The estimates of a problem; what the verifier reads is of the final video alone."""
    *steps, final = one.rows
    rows = [*({**row, "status": None} for row in steps), {"status": final["status"], "error": final.get("error")}]
    say = {"sigma": "sigma", "candidates by the estimate": "model", "by the exact posterior": "bayes"}
    made = replace(one, rows=rows).reel(say=say, at=lambda _, row: {"step": row["step"]} if "step" in row else {}, along="step")
    weights = [{"the answer that comes, estimate": row["weight"], "exact posterior": row["bayes_weight"]} for row in steps]
    return replace(made, rows=[replace(shown, bars=bars) for shown, bars in zip(made.rows, [*weights, {}], strict=True)])


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    out = []
    for task, part in rows.groupby("task", sort=False):
        for step in spread(int(part.step.max()) + 1, 6):
            at = part[part.step == step]
            out.append({
                "task": task, "step": step, "sigma": float(at.sigma.iloc[0]), "estimate": _mean(at, "model"),
                "posterior": _mean(at, "bayes"), "total variation": _mean(at, "apart"),
                "with affine weights": _mean(at, "apart_affine"), "margin, SD": _mean(at, "margin"),
            })  # fmt: skip
    return pd.DataFrame(out)


def _mean(rows: pd.DataFrame, value: str) -> str:
    """Over problems: numbers that happen to be all 1 are no shares."""
    return str(Mean(rows[value], normal=True).number())


def _count(rows: pd.DataFrame) -> str:
    per = rows.groupby("problem").candidates.first()
    return f"{len(per)} problems with {per.mean():.1f} candidates on average; bands: 95 % intervals over problems."
