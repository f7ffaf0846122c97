"""The page of the commitment tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from cos_interp.analyses.commitment import CommitmentFacts
from cos_interp.analyses.commitment.findings import LOOKS, findings
from cos_interp.analyses.commitment.measure import DRAWS
from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Statistic
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.facts import LeftOut
from cos_interp.analyses.driver.kept import kept_clips, listed
from cos_interp.analyses.driver.statistics import auc, by_item, curve, flat, mean_number
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.kit.screening import screening_table
from cos_interp.reports.figures import Curve, Panel, panels, step_ticks

VIDEOS = (
    "One of the runs that go on from the re-noised estimate of a step, beside the run itself. Table: of every item, the first "
    "tested step from which on every re-noised run gives the run's answer (none: never), and the share of all that do; those "
    "with a link have their videos here."
)


def committed_step(rows: pd.DataFrame) -> pd.Series:
    """By problem: the first tested step from which every re-noised run gives the same answer; NaN when there is none."""
    kept = rows[rows.same.notna()].groupby(["problem", "step"]).same.all().unstack()
    from_here_on = kept.iloc[:, ::-1].cummin(axis=1).iloc[:, ::-1].astype(bool)
    return from_here_on.apply(lambda row: next((float(k) for k, v in row.items() if v), np.nan), axis=1)


def auc_by_step(looks: pd.DataFrame, by: str = "score") -> pd.DataFrame:
    """How well the look at a step predicts the final verdict: area under the curve, interval over problems."""
    out = []
    for step, at in looks.groupby("step"):
        groups = [group[[by, "solved"]].to_numpy(float) for _, group in at.groupby("problem")]
        number = Statistic(groups, lambda part: auc(*np.concatenate(part).T)).number()
        out.append({"step": step, **number.point})
    return pd.DataFrame(out)


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows = result.rows
    sigmas = result.sigmas
    judged = rows.task.ne("prompts").any()
    notes = [left.reason for left in result.units_of(LeftOut).values()]
    if not judged:
        notes.append("These problems have no verifier: only the distance of the re-noised results is shown.")
    sections = [_renoise_section(rows, sigmas, judged)]
    if judged:
        sections += [*_margin_section(rows, sigmas), *_look_sections(rows, sigmas), *_transplant_sections(rows, sigmas)]
    sections += _videos(result, rows, store)
    question = (
        "At which step is the plan chosen? The clean estimate of step k gets fresh noise at the same sigma and the run is "
        "finished: what comes out the same was fixed at k."
    )
    source = "CoS section 3.1; Early plan commitment (2603.30043)"
    found = findings(result, rows, sigmas) if judged else []
    return pages.build(result, "Commitment", question, source, found, sections, notes, ("cause", "correlation"))


def _axis(sigmas: list[float]) -> dict:
    return {"along": "step", "xlabel": "step, sigma", "ticks": step_ticks(sigmas, 2)}


def _renoise_section(rows: pd.DataFrame, sigmas: list[float], judged: bool) -> pages.Section:
    again, chance = rows[rows.kind == "renoise"], rows[rows.kind == "independent"]
    if again.empty:
        return pages.Section("Re-noising", caption="No item has several right answers: there is nothing to choose.")
    made, table = [], None
    value, label = ("same", "same answer") if judged else ("distance", "distance to the first result")
    for task, part in again.groupby("task", sort=False):
        level = by_item(chance[chance.problem.isin(part.problem)], value)
        curves = [
            Curve("re-noised", curve(part, value)),
            Curve("two independent noises", flat(level, "step", 0, len(sigmas) - 1), "--"),
        ]
        made.append(Panel(str(task), curves, ylabel=label, **_axis(sigmas)))
    if judged:
        table = _commit_table(again)
    caption = (
        f"{DRAWS} fresh noises a step and problem, {again.problem.nunique()} problems; of the tasks' only those with several "
        "right answers. Bands: 95 % intervals over problems. Committed: every re-noised run from there on agrees. At sigma 1 "
        "nothing of the run is left: there the two curves differ by chance only."
    )
    return pages.Section("Re-noising", panels(made), caption, table)


def _margin_section(rows: pd.DataFrame, sigmas: list[float]) -> list[pages.Section]:
    """What a choice is worth: how far x_t stands from where an ideal observer would pick another answer."""
    again = rows[rows.kind == "renoise"]
    known = again[again.margin.notna()] if "margin" in again else again.head(0)
    if known.empty:
        return []
    curves = [Curve(str(task), curve(part, "margin")) for task, part in known.groupby("task", sort=False)]
    panel = Panel("distance to another answer", curves, ylabel="SD of the noise", **_axis(sigmas))
    caption = (
        "x_t's distance from the nearest boundary between two right answers, by the exact posterior over their encoded videos, "
        "in standard deviations of its noise: how firmly the state stands for an answer, whatever the model makes of it. "
        f"{known.problem.nunique()} problems, bands: 95 % intervals over them."
    )
    return [pages.Section("Margin", panels([panel]), caption)]


def _videos(result: AnalysisResult, rows: pd.DataFrame, store: RunStore) -> list[pages.Section]:
    """What re-noising makes of a run, step by step beside it; every item with the step from which on it is committed."""
    reels = [
        replace(one, rows=[_judged(row) for row in one.rows]).reel(
            say={"sigma": "sigma"}, at=lambda _, row: {"step": row["step"]} if row else {}, along="step"
        )
        for one in kept_clips(result, store, CommitmentFacts)
    ]
    again = rows[rows.kind == "renoise"]
    if again.empty:
        return []
    since = committed_step(again)
    told = pd.DataFrame({
        "committed at step": since.astype(float),
        "same answer again": again.astype({"same": float}).groupby("problem").same.mean().reindex(since.index),
    })  # fmt: skip
    return [pages.Section("Runs one by one", caption=VIDEOS, reels=reels, table=listed(told, again, reels))]


def _judged(row: Row) -> Row:
    """A row with whose answer a re-noised run gives."""
    return {**row, "outcome": "the run's own" if row["same"] else "another one, or none"} if row else row


def _commit_table(again: pd.DataFrame) -> pd.DataFrame:
    about = again.groupby("problem")[["task", "difficulty"]].first()
    found = about.assign(commit=committed_step(again))
    rows = []
    for (task, difficulty), part in found.groupby(["task", "difficulty"]):
        number = mean_number(part.commit)
        never = int(part.commit.isna().sum())
        rows.append(
            {"task": task, "difficulty": int(difficulty), "problems": len(part), "committed at step": str(number), "never": never}
        )
    return pd.DataFrame(rows)


def _look_sections(rows: pd.DataFrame, sigmas: list[float]) -> list[pages.Section]:
    looks = rows[rows.kind == "look"]
    table = screening_table(looks, len(sigmas))
    blind = screening_table(looks, len(sigmas), LOOKS["screening-blind"])
    names = ("single", "screened", "best of equal compute", "best of all")
    curves = [Curve(name, curve(table, name)) for name in names] + [
        Curve("screened without a verifier", curve(blind, "screened"))
    ]
    panel = Panel("accuracy of screening", curves, ylabel="solved", **_axis(sigmas))
    areas = [Curve("verifier", auc_by_step(looks)), Curve("none: how settled", auc_by_step(looks, LOOKS["screening-blind"]))]
    area = Panel("", areas, ylabel="area under the curve", **_axis(sigmas))
    shown = [area] if looks.solved.astype(bool).nunique() > 1 else []
    caption = (
        "Left: how well a look at the clean estimate predicts the final verdict (0.5: not at all), by the verifier, and without "
        "it by how little the estimate moved in the last step. Right: all seeds are run to step k, the one that looks best is "
        "finished; against one seed, against finishing as many seeds as the same number of steps allows (a perfect verifier "
        f"picks), and against finishing all. {looks.problem.nunique()} problems, bands: 95 % intervals over them."
    )
    return [pages.Section("Early looks", panels([*shown, panel]), caption)]


def _transplant_sections(rows: pd.DataFrame, sigmas: list[float]) -> list[pages.Section]:
    moved = rows[rows.kind == "transplant"]
    if moved.empty:
        return []
    groups = moved[moved.site == "hook_x_t"]
    whole = groups[groups.group == "all"].effect
    latent = [Curve(str(g), curve(p, "effect")) for g, p in groups.groupby("group", sort=False)]
    states = [Curve(str(s), curve(p, "effect")) for s, p in moved[moved.site != "hook_x_t"].groupby("site", sort=False)]
    made = [
        Panel("x_t of token groups", latent, ylabel="effect", **_axis(sigmas)),
        Panel("layer states, all tokens, one step", states, ylabel="effect", **_axis(sigmas)),
    ]
    caption = (
        f"Another run of the same problem with another right answer gives x_t or a layer's state at one step "
        f"({moved.problem.nunique()} pairs). Control: all of x_t is the whole state, so its effect must be exactly 1; measured "
        f"{whole.min():g} to {whole.max():g}."
    )
    share = moved.assign(flipped=(moved.outcome == "donor").astype(float)).groupby(["site", "group"], sort=False).flipped
    table = share.agg(["mean", "count"]).reset_index().rename(columns={"mean": "answer flips", "count": "cells"})
    return [pages.Section("Transplants", panels(made), caption, table)]
