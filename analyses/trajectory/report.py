"""Maps of runs, and distances between right and wrong runs and between answers. Knows stored states, not models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Finding, Number, decide
from cos_interp.analyses.driver.statistics import curve, mean_number, paired
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.trajectory import TrajectoryFacts
from cos_interp.analyses.trajectory.separation import chance_separation, separation
from cos_interp.probes import pca, umap
from cos_interp.reports.figures import Curve, Panel, panels, scatters, step_ticks

Runs = Mapping[str, Sequence[Mapping[str, Any]]]  # of each unit its runs, as facts say them

TITLE = "Trajectories"
SOURCE = "CoS section 3.1 (the answer forms along the steps); the maps are this project's own reading"
QUESTION = (
    "Where do runs go, and when do those with different answers part? Each item is generated from several noises. Distances are "
    "between runs of one item, so that neither the picture nor the prompt makes the difference: 0 is equal, 1.41 unrelated."
)
MAPPED = 3  # spaces drawn as maps: x_t, x0hat and one layer
FEWEST = 5  # items with both kinds of pairs; with fewer an interval over items says nothing
RULE = f"the interval of the growth lies above 0, over items with both kinds of pairs, at least {FEWEST}"
CONTROL = "verdicts and answers dealt out anew among the runs of each item"


def middle_space(spaces: list[str]) -> str | None:
    """The middle one of the layers that were followed."""
    layers = [s for s in spaces if s.startswith("layer ")]
    return layers[len(layers) // 2] if layers else None


def runs_of(result: AnalysisResult) -> Runs:
    return {unit: facts.runs for unit, facts in result.units_of(TrajectoryFacts).items()}


# --- findings --------------------------------------------------------------------------------------------------------


def growth(apart: pd.DataFrame, space: str) -> Number:
    """Separation at the last step minus that at the first one, paired by problem."""
    own = apart[apart.space == space]
    ends = [own[own.step == k].set_index("problem").separation for k in (own.step.max(), own.step.min())]
    return paired(*ends)


def first_apart(apart: pd.DataFrame, space: str) -> int | None:
    """First step from which on the interval of the separation lies above 0; None when it never does."""
    found = curve(apart[apart.space == space], "separation")
    step = None
    for row in found[::-1].itertuples():
        if not row.low > 0:
            break
        step = int(row.step)
    return step


def findings(rows: pd.DataFrame, runs: Runs) -> list[Finding]:
    claims = {
        "same_answer": ("Different answers part along the denoising steps (3.1)", "runs with different answers are further apart "
                        "in x0hat than runs with one answer; from the first to the last step that grows by"),
        "relation": ("Right and wrong runs part along the denoising steps (3.1)", "a right and a wrong run are further apart in "
                     "x0hat than two right ones; from the first to the last step that grows by"),
    }  # fmt: skip
    return [_finding(separation(rows, by), chance_separation(rows, runs, by), *texts) for by, texts in claims.items()]


def _finding(apart: pd.DataFrame, control: pd.DataFrame, claim: str, statement: str) -> Finding:
    gain, step = growth(apart, "x0hat"), first_apart(apart, "x0hat")
    since = "at no step are they surely further apart" if step is None else f"they are further apart from step {step} on"
    if gain.n < FEWEST:
        return Finding(claim, "not testable", f"too few items: {statement}", gain, CONTROL, growth(control, "x0hat"), RULE)
    return Finding(claim, decide(gain.low, gain.high), f"({since}) {statement}", gain, CONTROL, growth(control, "x0hat"), RULE)


# --- page ------------------------------------------------------------------------------------------------------------


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows, runs = result.rows, runs_of(result)
    sigmas = result.sigmas
    judged = bool(rows.relation.notna().any())
    notes = ["Undecided runs count as not right; they have no answer."] if judged else [
        "These prompts have no verifier: the distances are shown for all pairs of runs, the maps without outcome and answer."
    ]  # fmt: skip
    points, titles = mapped(result, store)
    sections = [_distances(rows, sigmas)]
    if judged:
        sections += [_separations(rows, runs, by, sigmas) for by in ("same_answer", "relation")]
    sections += _maps(points, titles, judged)
    page = pages.build(result, TITLE, QUESTION, SOURCE, findings(rows, runs) if judged else [], sections, notes)
    return replace(page, media={**page.media, "maps.csv": points.to_csv(index=False, float_format="%.4f").encode()})


def _axis(rows: pd.DataFrame, sigmas: list[float]) -> dict:
    ticks = {k: label for k, label in step_ticks(sigmas).items() if k in set(rows.step)}
    return {"along": "step", "xlabel": "step, sigma", "ticks": ticks}


def _distances(rows: pd.DataFrame, sigmas: list[float]) -> pages.Section:
    axis = {**_axis(rows, sigmas), "ylabel": "distance"}
    spaces = [Curve(str(s), curve(p, "distance")) for s, p in rows.groupby("space", sort=False)]
    tasks = [Curve(str(t), curve(p, "distance")) for t, p in rows[rows.space == "x0hat"].groupby("task", sort=False)]
    figure = panels([Panel("two runs of one item, by space", spaces, **axis), Panel("x0hat, by task", tasks, **axis)])
    caption = "Two runs of one item from different noises, all pairs. Bands: 95 % bootstrap over items."
    return pages.Section("Distances along the steps", figure, caption)


def _separations(rows: pd.DataFrame, runs: Runs, by: str, sigmas: list[float]) -> pages.Section:
    found, control = separation(rows, by), chance_separation(rows, runs, by)
    title = "Same and different answers" if by == "same_answer" else "Right and wrong runs"
    kinds = "different minus same answers" if by == "same_answer" else "right-wrong minus right-right pairs"
    if found.empty:
        return pages.Section(title, caption="No item has both kinds of pairs: take more noises or more items.")
    made = []
    for space, part in found.groupby("space", sort=False):
        lines = [Curve("measured", curve(part, "separation"))]
        shuffled = control[control.space == space]
        lines += [Curve("verdicts dealt out anew", curve(shuffled, "separation"), "--")] if len(shuffled) else []
        made.append(Panel(str(space), lines, ylabel="difference of distances", **_axis(rows, sigmas)))
    caption = f"Distance, {kinds} of one item; {found.problem.nunique()} items have both. Bands: 95 % bootstrap over items."
    return pages.Section(title, panels(made), caption, _table(rows, found, by))


def _table(rows: pd.DataFrame, found: pd.DataFrame, by: str) -> pd.DataFrame:
    """First and last step by space: distances of both kinds of pairs, and their difference."""
    out = []
    for space, part in found.groupby("space", sort=False):
        for step in (part.step.min(), part.step.max()):
            here = rows[(rows.space == space) & (rows.step == step)]
            row = {"space": space, "step": step, "sigma": float(here.sigma.iloc[0])}
            row |= {_kind(kind, by): f"{p.distance.mean():.3f} ({len(p)} pairs)" for kind, p in here.groupby(by)}
            out.append({**row, "difference within items": str(mean_number(part[part.step == step].separation))})
    return pd.DataFrame(out)


def _kind(kind: object, by: str) -> str:
    if by == "same_answer":
        return "same answer" if kind else "different answers"
    return str(kind)


# --- maps ------------------------------------------------------------------------------------------------------------


def mapped(result: AnalysisResult, store: RunStore) -> tuple[pd.DataFrame, dict[str, str]]:
    """Coordinates of every run and step in the mapped spaces by PCA and UMAP, and a title for each map."""
    states: dict[str, list[np.ndarray]] = {}
    about: list[pd.DataFrame] = []
    for unit, facts in result.units_of(TrajectoryFacts).items():
        tensors = store.tensors(unit)
        spaces = list(facts.axes)
        for space in ("x_t", "x0hat", middle_space(sorted(spaces, key=_order))):
            if space is not None:
                states.setdefault(space, []).append(tensors[space].flatten(0, 1).numpy())
        about.append(_labels(unit, facts))
    labels = pd.concat(about, ignore_index=True)
    parts, titles = [], {}
    for space, found in states.items():
        points = np.concatenate(found)
        flat, share = pca(points)
        titles[f"PCA {space}"] = f"PCA, {space} ({share.sum():.0%} of the variance)"
        titles[f"UMAP {space}"] = f"UMAP, {space}"
        near = umap(points, result.config.neighbours)
        parts += [labels.assign(map=f"PCA {space}", x=flat[:, 0], y=flat[:, 1])]
        parts += [labels.assign(map=f"UMAP {space}", x=near[:, 0], y=near[:, 1])]
    return pd.concat(parts, ignore_index=True), titles


def _order(space: str) -> int:
    return int(space.removeprefix("layer ")) if space.startswith("layer ") else -1


def _labels(unit: str, facts: TrajectoryFacts) -> pd.DataFrame:
    """A row for each run and step, in the order of the stored states."""
    rows = []
    for run in facts.runs:
        answer = run["answer"] if run["answer"] and run["status"] != "undecided" else None
        ends = f"row {answer[-2]}" if answer and answer[-2:].isdigit() else "unreadable"
        common = {"problem": unit, "task": facts.task, "noise": run["noise"], "outcome": run["status"], "answer": answer}
        rows += [{**common, "ends": ends, "step": k, "sigma": facts.sigmas[k]} for k in facts.steps]
    return pd.DataFrame(rows)


def _maps(points: pd.DataFrame, titles: dict[str, str], judged: bool) -> list[pages.Section]:
    order = sorted(titles, key=lambda name: not name.startswith("PCA"))
    tables = [(titles[name], points[points["map"] == name]) for name in order]
    columns = min(MAPPED, len(order) // 2)
    caption = (
        "Every point is one run at one step. UMAP keeps neighbours and not distances: how far apart two clusters are means "
        "nothing. All coordinates: media/maps.csv."
    )
    kinds = [("step", "step", False), ("task", "task", True)]
    kinds += [("outcome", "final verdict", True), ("ends", "final answer ends in", True)] if judged else []
    return [
        pages.Section(f"Maps by {label}", scatters(tables, colour, label, categorical, columns), caption if n == 0 else "")
        for n, (colour, label, categorical) in enumerate(kinds)
    ]
