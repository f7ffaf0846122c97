"""Maps of runs, and distances between right and wrong runs and between answers. Knows stored states, not models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import DIFFERENCE, Mean
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.kept import first_items, listed, reads
from cos_interp.analyses.driver.rules import no_room
from cos_interp.analyses.driver.statistics import curve, mean_number
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.driver.thumbnails import looked_into, thumbnails
from cos_interp.analyses.trajectory import ESTIMATES, FINALS, STATES, TrajectoryFacts
from cos_interp.analyses.trajectory.separation import chance_separation, separation
from cos_interp.analyses.trajectory.told import NOISE, by_item
from cos_interp.probes import pca, umap
from cos_interp.reports.drawing import REELS
from cos_interp.reports.figures import Curve, Panel, panels, scatters, step_ticks

Runs = Mapping[str, Sequence[Mapping[str, Any]]]  # of each unit its runs, as facts say them

TITLE = "Trajectories"
SOURCE = "CoS section 3.1 (the answer forms along the steps); the maps are this project's own reading"
QUESTION = (
    "Where do runs go, and when do those with different answers part? Each item is generated from several noises. Distances are "
    "between runs of one item, so that neither the picture nor the prompt makes the difference: 0 is equal, 1.41 unrelated."
)
MAPS = (
    "Every point is one run at one step; a line joins the steps of a run. UMAP keeps neighbours and not distances: how far apart "
    "two clusters are means nothing. All coordinates: media/maps.csv."
)
ITEMS = "The final videos of all noises of an item, of the first items of each task, small; how the runs of every item ended."
SMALL_CLIPS = "What the points of the maps show: final videos of all runs, and the clean estimates of some before them."
MAPPED = 3  # spaces drawn as maps: x_t, x0hat and one layer
READINGS = ["x0hat", "x_t", NOISE]


def middle_space(spaces: list[str]) -> str | None:
    """The middle one of the layers that were followed."""
    layers = [s for s in spaces if s.startswith("layer ")]
    return layers[len(layers) // 2] if layers else None


def runs_of(result: AnalysisResult) -> Runs:
    return {unit: facts.runs for unit, facts in result.units_of(TrajectoryFacts).items()}


# --- findings --------------------------------------------------------------------------------------------------------


def told_step(rows: pd.DataFrame, sigmas: Sequence[float]) -> int | None:
    """The last looked at step in the first half of the run; at the end the estimate is the answer, whatever came before."""
    return max((int(k) for k in rows.step.unique() if k <= len(sigmas) / 2), default=None)


def findings(result: AnalysisResult, rows: pd.DataFrame, sigmas: Sequence[float]) -> list[Finding]:
    """Does the estimate tell the final answer better than the noise (the claim), and than an ideal observer of x_t?"""
    told = rows[rows.kind == "told"]
    step = told_step(told, sigmas) if len(told) else None
    found = pd.DataFrame(columns=READINGS, dtype=float) if step is None else by_item(told, step)
    areas = {name: Mean(found[name], bounds=(0, 1)).number() for name in READINGS}
    at = "an early step" if step is None else f"step {step}"
    return [
        result.judge(
            f"trajectory.{key}", Mean(found["x0hat"] - found[control], bounds=DIFFERENCE),
            f"of two runs of one item that end with different right answers, x0hat at {at} tells which is whose with an "
            f"area under the curve of {areas['x0hat']}, an ideal observer of x_t there with {areas['x_t']}; more than {said} by",
            areas[control], no_room(f"trajectory.{key}", 1 - areas[control].value, said),
        )
        for key, control, said in (("answers", NOISE, "an observer of the noise alone"), ("beyond-bayes", "x_t", "that observer"))
    ]  # fmt: skip


# --- page ------------------------------------------------------------------------------------------------------------


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows, runs = result.rows[result.rows.kind == "pair"], runs_of(result)
    sigmas = result.sigmas
    judged = bool(rows.relation.notna().any())
    notes = ["Undecided runs count as not right; they have no answer."] if judged else [
        "These prompts have no verifier: the distances are shown for all pairs of runs, the maps without outcome and answer."
    ]  # fmt: skip
    points, titles = mapped(result, store)
    sections = [_distances(rows, sigmas)]
    if judged:
        sections += _answers(result.rows[result.rows.kind == "told"], sigmas)
        sections += [_separations(rows, runs, by, sigmas) for by in ("same_answer", "relation")]
    sections += _maps(points, titles, judged, small_clips(result, store))
    sections.append(_items(result, store))
    found = findings(result, result.rows, sigmas) if judged else []
    page = pages.build(result, TITLE, QUESTION, SOURCE, found, sections, notes, ("correlation",))
    return replace(page, media={**page.media, "maps.csv": points.to_csv(index=False, float_format="%.4f").encode()})


def _axis(rows: pd.DataFrame, sigmas: list[float]) -> dict:
    ticks = {k: label for k, label in step_ticks(sigmas).items() if k in set(rows.step)}
    return {"along": "step", "xlabel": "step, sigma", "ticks": ticks}


def _distances(rows: pd.DataFrame, sigmas: list[float]) -> pages.Section:
    axis = {**_axis(rows, sigmas), "ylabel": "distance"}
    spaces = [Curve(str(s), curve(p, "distance")) for s, p in rows.groupby("space", sort=False)]
    tasks = [Curve(str(t), curve(p, "distance")) for t, p in rows[rows.space == "x0hat"].groupby("task", sort=False)]
    figure = panels([Panel("two runs of one item, by space", spaces, **axis), Panel("x0hat, by task", tasks, **axis)])
    caption = "Two runs of one item from different noises, all pairs. Bands: 95 % intervals over items."
    return pages.Section("Distances along the steps", figure, caption)


def _answers(told: pd.DataFrame, sigmas: list[float]) -> list[pages.Section]:
    if told.empty:
        return []
    names = {"x0hat": "x0hat, least squares", "x_t": "x_t, ideal observer", NOISE: "noise, ideal observer"}
    styles = {NOISE: "--"}
    curves = [Curve(names[n], curve(part, "told"), styles.get(str(n), "-")) for n, part in told.groupby("reading", sort=False)]
    panel = Panel("which answer is whose", curves, ylabel="area under the curve", bounds=(-0.03, 1.03), **_axis(told, sigmas))
    caption = (
        "Pairs of runs of one item that end solved with different answers: how often a state speaks more for its own run's (0.5: "
        f"chance). {told.problem.nunique()} items, bands: 95 % intervals over them. At the last steps x0hat is the answer, so "
        "that only early steps say something."
    )
    return [pages.Section("The final answer, told from a state", panels([panel]), caption)]


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
    caption = (
        f"Distance, {kinds} of one item; {found.problem.nunique()} items have both. Bands: 95 % intervals over items. No "
        "verdict: at the last step another answer is another estimate, whatever came before."
    )
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
        spaces = [space for space, axes in facts.axes.items() if axes == STATES]
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
        common = {"run": _run(unit, run["noise"]), "problem": unit, "task": facts.task, "noise": run["noise"]}
        common |= {"outcome": run["status"], "answer": answer}
        rows += [{**common, "ends": ends, "step": k, "sigma": facts.sigmas[k]} for k in facts.steps]
    return pd.DataFrame(rows)


def _run(unit: str, noise: int) -> str:
    return f"{unit}, noise {noise}"


def small_clips(result: AnalysisResult, store: RunStore) -> list[pages.Reel]:
    """Of every run its final video, of some their clean estimates before it."""
    made = []
    for unit, facts in result.units_of(TrajectoryFacts).items():
        tensors = store.tensors(unit)
        finals, along = (tensors[name].numpy() if name in tensors else () for name in (FINALS, ESTIMATES))
        for place, final in enumerate(finals):
            run = facts.runs[place]
            name = _run(unit, run["noise"])
            estimates = zip(facts.steps, along[place], strict=True) if len(along) else ()
            made += [(pages.Shown(f"{name}, step {k}", {}, {"run": name, "step": k}), clip) for k, clip in estimates]
            reads = {"reads": run["status"]} if run["status"] else {}
            made.append((pages.Shown(f"{name}, final video", reads, {"run": name}), final))
    return thumbnails(made)


def _items(result: AnalysisResult, store: RunStore) -> pages.Section:
    """The final videos of an item's runs beside each other, and how all items ended."""
    units = result.units_of(TrajectoryFacts)
    reels = [item_reel(name, units[name], store.tensors(name)[FINALS].numpy()) for name in first_items(result.rows)]
    return pages.Section(
        "Items one by one", caption=ITEMS, reels=reels, table=listed(item_table(result, units), result.rows, reels)
    )


def item_reel(name: str, facts: TrajectoryFacts, finals: np.ndarray) -> pages.Reel:
    told = [{"reads": said[1]} if (said := reads(run)) else {} for run in facts.runs]
    shown = [pages.Shown(f"noise {run['noise']}", one) for run, one in zip(facts.runs, told, strict=True)]
    return pages.Reel(name, f"“{facts.prompt}”", finals, shown)


def item_table(result: AnalysisResult, units: Mapping[str, TrajectoryFacts]) -> pd.DataFrame:
    """A row an item: how its runs ended, into how many answers, and how far apart their estimates are half-way."""
    rows = result.rows[(result.rows.kind == "pair") & (result.rows.space == "x0hat")]
    steps = sorted(rows.step.unique())
    half = steps[(len(steps) - 1) // 2]
    ends = {name: Counter(said[1] for run in facts.runs if (said := reads(run))) for name, facts in units.items()}
    right = {name: {run["answer"] for run in facts.runs if run["status"] == "solved"} for name, facts in units.items()}
    told = pd.DataFrame({
        "runs": {name: len(facts.runs) for name, facts in units.items()},
        "end as": {name: ", ".join(f"{n} {end}" for end, n in sorted(some.items())) or None for name, some in ends.items()},
        "different right answers": {name: len(right[name]) if ends[name] else None for name in units},
        f"x0hat apart at step {half}": rows[rows.step == half].groupby("problem").distance.mean(),
    })  # fmt: skip
    return told.reindex(list(units)).dropna(axis=1, how="all").rename_axis("problem")


def _maps(points: pd.DataFrame, titles: dict[str, str], judged: bool, reels: Sequence[pages.Reel]) -> list[pages.Section]:
    order = sorted(titles, key=lambda name: not name.startswith("PCA"))
    tables = [(titles[name], points[points["map"] == name]) for name in order]
    columns, seen = min(MAPPED, len(order) // 2), looked_into(reels, "run")
    told = ["run", "step", "sigma", "task", "outcome", "answer"]
    kinds = [("step", "step", False), ("task", "task", True)]
    kinds += [("outcome", "final verdict", True), ("ends", "final answer ends in", True)] if judged else []
    sections = []
    for n, (colour, label, categorical) in enumerate(kinds):
        about = tables[0][1][list(dict.fromkeys([*told, colour]))].reset_index(drop=True)
        about = about.dropna(axis=1, how="all").assign(**{REELS: [seen.get(run, ()) for run in about.run]})
        figure = scatters(tables, colour, label, about, ("run", "step"), categorical, columns, joined=True)
        sections.append(pages.Section(f"Maps by {label}", figure, MAPS if n == 0 else ""))
    return [*sections, pages.Section("Small clips", caption=SMALL_CLIPS, reels=reels)] if reels else sections
