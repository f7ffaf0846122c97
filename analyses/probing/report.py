"""The page of a probe run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.driver.thumbnails import looked_into, thumbnails
from cos_interp.analyses.probing import TransferFacts
from cos_interp.analyses.probing.data import SMALL_CLIP, dataset, used_tasks
from cos_interp.analyses.probing.findings import Depth, eligible, order_findings, selectivity, use_findings
from cos_interp.interp.address import layer_of
from cos_interp.probes.crossval import ask
from cos_interp.probes.dataset import ProbeDataset
from cos_interp.probes.roles import BASELINES, OWN, centre, role
from cos_interp.probes.views import shown_rows, view
from cos_interp.reports.drawing import REELS, Drawing
from cos_interp.reports.figures import Curve, Panel, bars, matrix_maps, panels, scatters
from cos_interp.tasks.labels import FAMILIES

QUESTION = (
    "Which layer, at which step, knows what? A linear probe is trained at every layer and step on whole clips and tested on "
    "others. Scores are balanced accuracy (chance is 1 / classes) or R2."
)
VIEWS = "Probed tokens in two dimensions, coloured by the target. Marked with a token: the others of its clip."
SOURCE = "CoS section 5.1; Hewitt & Liang 2019 (control task); Geiger et al. 2021 (interchange)"


def report(result: AnalysisResult, store: RunStore) -> Report:
    config = result.config
    rows = result.rows
    clips = [u for u in result.units if u.startswith("clip-")]
    data = dataset(store, config, clips)
    notes = _notes(rows)
    scores = rows[rows.table == "score"].dropna(axis=1, how="all") if "score" in rows else pd.DataFrame()
    if scores.empty:
        return pages.build(result, "Probes", QUESTION, SOURCE, [], [], [*notes, "No target could be probed on these clips."])
    scores = scores.astype({"layer": int, "step": int})
    found = depths(scores, store, data, config.folds)
    use = rows[rows.table == "use"] if "use" in set(rows.table) else pd.DataFrame()
    families = {depth.target: depth.family for depth in found if used_tasks(config, data.targets[depth.target])}
    findings = order_findings(result, [d for d in found if d.classifies])
    findings += use_findings(result, use, families)
    sections = [
        *_maps(scores, data),
        _lines(scores, data),
        _roles(found, scores, data),
        _balance(found, data),
        *_transfer(result, store, data, scores),
        *_used(use),
        *(_views(scores, data, small_clips(store, clips)) if config.views else []),
    ]
    return pages.build(result, "Probes", QUESTION, SOURCE, findings, sections, notes, ("cause", "correlation"))


def depths(scores: pd.DataFrame, store: RunStore, data: ProbeDataset, folds: int) -> list[Depth]:
    """What is held against what in depth: one a target, families in order."""
    held = [store.tensors(f"step-{step:03d}") for step in data.steps]
    out = []
    for target in scores.target.unique():
        score, control = (np.stack([h[f"{kind}.{target}"].numpy() for h in held], 2) for kind in ("score", "control"))
        clips = tuple(int(clip) for clip in ask(data, str(target), folds).clips)
        part = scores[scores.target == target]
        out.append(Depth(str(target), data.targets[str(target)].family, score, control, clips, gain(part)))
    return sorted(out, key=lambda depth: FAMILIES.index(depth.family))


def gain(scores: pd.DataFrame) -> float:
    """The score of a target's best layer, mean over steps, beyond that of its best input (the first frame, of which
    perception targets are read, is none for them)."""
    kinds = OWN if scores.family.iloc[0] == "perception" else BASELINES
    inputs = [scores[kind].mean() for kind in kinds if kind in scores]
    return float(scores.groupby("layer").score.mean().max() - max(inputs, default=np.nan))


def _notes(rows: pd.DataFrame) -> list[str]:
    if "why" not in rows:
        return []
    return sorted({f"Left out: {why}" for why in rows[rows.table == "left out"].why})


def _labels(data: ProbeDataset) -> dict[int, str]:
    return {k: f"{k}\n{sigma:.2f}" for k, sigma in zip(data.steps, data.sigmas, strict=True)}


def _pivot(part: pd.DataFrame, value: str) -> pd.DataFrame:
    return part.pivot(index="layer", columns="step", values=value)


def _clips(scores: pd.DataFrame) -> list[int]:
    """How many clips each score is of."""
    return [int(n) for n in scores.n_clips.unique()]


def _maps(scores: pd.DataFrame, data: ProbeDataset) -> list[pages.Section]:
    groups = list(scores.groupby("target", sort=False))
    made = [(f"{t} ({p.family.iloc[0]})", _pivot(p, "score")) for t, p in groups]
    scored = matrix_maps(made, "step, sigma", "layer", "score", columns=len(made), xticks=_labels(data))
    sections = [pages.Section("What is readable where", scored, "Score out of fold, by layer and step.", of=_clips(scores))]
    if "selectivity" in scores:
        chosen = [(str(t), _pivot(p, "selectivity")) for t, p in groups]
        figure = matrix_maps(
            chosen, "step, sigma", "layer", "selectivity", diverging=True, columns=len(chosen), xticks=_labels(data)
        )
        caption = "The score minus that of random labels by position: below 0 a probe reads the position better than the target."
        sections.append(pages.Section("Selectivity", figure, caption, of=_clips(scores)))
    return sections


PERCENTILE = "percentile bootstrap over clips"


def _marks(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores by step as the marks of a curve."""
    named = scores.rename(columns={"score": "mean", "n_clips": "n"})
    return named[["step", "mean", "low", "high", "n"]].assign(interval=PERCENTILE)


def _lines(scores: pd.DataFrame, data: ProbeDataset) -> pages.Section:
    made = []
    ticks = dict(list(_labels(data).items())[::2])
    for target, part in scores.groupby("target", sort=False):
        best = part.loc[part.groupby("step").score.idxmax()].sort_values("step")
        curves = [Curve("best layer", _marks(best))]
        for name in (b for b in BASELINES if b in part):
            by = part.groupby("step")[name].max().rename("mean").reset_index()
            curves.append(Curve(name, by, ":" if name in ("majority", "shuffled") else "--"))
        made.append(Panel(str(target), curves, "step", "step, sigma", "score", ticks))
    caption = (
        "The best layer of each step (band: 95 % intervals over clips) against what needs no model: the majority, shuffled "
        "labels, and the same probe on x_t, on the first frame's latent and on the token's position."
    )
    return pages.Section("Against the baselines", panels(made), caption)


def _roles(found: Sequence[Depth], scores: pd.DataFrame, data: ProbeDataset) -> pages.Section:
    sigma = dict(zip(data.steps, data.sigmas, strict=True))
    place = lambda at: "nowhere" if at is None else f"layer {at[0]}, step {at[1]} (sigma {sigma[at[1]]:.2f})"
    rows = []
    for depth in found:
        part = scores[scores.target == depth.target]
        made, by_layer = role(part), selectivity(depth) if depth.classifies else np.array([np.nan])
        rows.append({
            "target": made.target, "family": made.family, "first reliable": place(made.first), "peak": place(made.peak),
            "score there": f"{made.score:.2f} [{made.low:.2f}, {made.high:.2f}]", "best baseline": made.baseline,
            "largest selectivity": float(by_layer.max()), "mean layer of it": centre(by_layer),
            "clips, tokens": f"{int(part.n_clips.iloc[0])}, {int(part.n_rows.iloc[0])}",
        })  # fmt: skip
    caption = (
        "First reliable: lowest layer, then step, whose interval lies above every baseline (for perception the first frame is no "
        "baseline but the source). Selectivity: the score minus that of random labels by position, averaged over the steps; its "
        "mean layer, 0 the first and 1 the last, is weighted by what of it is above 0, and is what the claims on depth compare; "
        "n counts clips."
    )
    return pages.Section("Roles of the layers", _depths(found), caption, pd.DataFrame(rows), key=True)


def _depths(found: Sequence[Depth]) -> Drawing | None:
    """Selectivity by layer of every target that has one, with the mean layer that the verdicts on depth compare."""
    curves = []
    for depth in (depth for depth in found if depth.classifies):
        by_layer = selectivity(depth)
        name = f"{depth.family}: {depth.target}, mean layer {centre(by_layer):.2f} (n = {len(depth.clips)})"
        curves.append(Curve(name, pd.DataFrame({"layer": range(len(by_layer)), "mean": by_layer})))
    return panels([Panel("mean over the steps", curves, "layer", "probed layer, in order", "selectivity")], 1) if curves else None


def _balance(found: Sequence[Depth], data: ProbeDataset) -> pages.Section:
    table = [
        {"target": d.target, "class": name, "tokens": count} for d in found for name, count in data.balance(d.target).items()
    ]
    return pages.Section(
        "Class balance", None, "Classes that occur in fewer clips than there are folds are not probed.", pd.DataFrame(table)
    )


def _transfer(result: AnalysisResult, store: RunStore, data: ProbeDataset, scores: pd.DataFrame) -> list[pages.Section]:
    steps, layers = [], []
    units = result.units_of(TransferFacts)
    for target, part in scores.groupby("target", sort=False):
        matrix = store.tensors(f"transfer-{target}")["matrix"].numpy()
        best = part.loc[part.score.idxmax()]
        cells = units[f"transfer-{target}"].cells
        along = [i for i, (name, _) in enumerate(cells) if name == best["name"]]
        down = [i for i, (_, step) in enumerate(cells) if step == best.step]
        ticks, depth = list(_labels(data).values()), [layer_of(cells[i][0]) for i in down]
        steps.append((f"{target}, layer {int(best.layer)}", pd.DataFrame(matrix[np.ix_(along, along)], list(data.steps), ticks)))
        layers.append((f"{target}, step {int(best.step)}", pd.DataFrame(matrix[np.ix_(down, down)], depth, depth)))
    by_step = matrix_maps(steps, "tested at step, sigma", "trained at step", "score", columns=len(steps))
    by_layer = matrix_maps(layers, "tested at layer", "trained at layer", "score", columns=len(layers))
    caption = "Rows: where the probe was trained; columns: where it is tested. One fold; at the best layer, and at the best step."
    sections = [
        pages.Section("Transfer between steps", by_step, caption),
        pages.Section("Transfer between layers", by_layer, caption),
    ]
    table = result.rows[result.rows.table == "task transfer"].dropna(axis=1, how="all")
    if len(table):
        text = [f"{r.score:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in table.itertuples()]
        shown = table[["target", "name", "step", "train", "test", "n_clips"]].astype({"step": int, "n_clips": int})
        sections.append(pages.Section("Transfer between tasks", table=shown.assign(score=text)))
    return sections


def _used(use: pd.DataFrame) -> list[pages.Section]:
    if use.empty:
        return []
    rows, table = [], []
    fit = eligible(use)
    for (target, edit, dose), part in fit.groupby(["target", "edit", "dose"], sort=False):
        shown = {side: Mean(part[f"{side}_shown"].to_numpy(float)).number() for side in ("donor", "target")}
        rows.append({"name": f"{target}: {edit}" + (f", {dose:g}" if dose else ""), **shown["donor"].point})
        counts = {f"reads: {name}": int((part.outcome == name).sum()) for name in ("donor", "target", "other", "undecided")}
        table.append({
            "target": target, "where": part["name"].iloc[0], "edit": edit, "dose": f"{dose:g}", "n": len(part), **counts,
            "other's answer shown": str(shown["donor"]), "own answer shown": str(shown["target"]),
            "effect": str(Mean(part.effect.to_numpy(float)).number()), "moved": f"{part.moved.astype(float).mean():.2f}",
        })  # fmt: skip
    pairs = use.groupby("target", sort=False).problem.nunique()
    read = ", ".join(f"{target} {fit[fit.target == target].problem.nunique()} of {n}" for target, n in pairs.items())
    caption = (
        "A run is given what a least-squares probe reads of another run (own), or is moved as far along "
        "random directions of the whitened data (random), at one layer, at the tokens where the labels of the two "
        "runs differ, in the first three quarters of the steps; 1 is all the way. Counted are pairs of which the "
        f"probe reads both runs right at most of these tokens: {read}. Shown: an answer in the last frame, where the "
        "two answers end differently; mean and 95 % interval over pairs. Reads: what the strict verifier says."
    )
    if not table:
        return [pages.Section("Is it used?", None, caption)]
    return [pages.Section("Is it used?", bars(pd.DataFrame(rows), "other run's answer shown"), caption, pd.DataFrame(table))]


def _clip(unit: str) -> str:
    """The problem of a unit that holds a clip."""
    return unit.removeprefix("clip-")


def small_clips(store: RunStore, units: Sequence[str]) -> list[pages.Reel]:
    """The final video of every clip that was probed."""
    held = [(_clip(unit), store.tensors(unit).get(SMALL_CLIP)) for unit in units]
    return thumbnails([(pages.Shown(name, {}, {"clip": name}), video.numpy()) for name, video in held if video is not None])


def _views(scores: pd.DataFrame, data: ProbeDataset, reels: Sequence[pages.Reel]) -> list[pages.Section]:
    sections = []
    for target, part in scores.groupby("target", sort=False):
        best = part.loc[part.score.idxmax()]
        first, last = part.layer.min(), part.layer.max()
        middle = data.steps[len(data.steps) // 2]
        places = [(first, data.steps[0]), (best.layer, data.steps[0]), (best.layer, middle), (last, data.steps[-1])]
        made = [
            (f"PCA, layer {int(layer)}, step {int(step)}", view(data, str(target), data.name_of(int(layer)), int(step)))
            for layer, step in dict.fromkeys((int(a), int(b)) for a, b in places)
        ]
        if len(data.rows(str(target))) > 30:
            flat = view(data, str(target), str(best["name"]), int(best.step), "umap")
            made.append((f"UMAP, layer {int(best.layer)}, step {int(best.step)} (peak)", flat))
        values = data.targets[str(target)].form == "values"
        about = _told(data, str(target), made[0][1].label, reels)
        label = "norm" if values else str(target)
        figure = scatters(made, "label", label, about, ("clip", "token"), categorical=not values)
        sections.append(pages.Section(f"Views: {target}", figure, VIEWS))
    clips = pages.Section("Small clips", caption="What the points of the views are of.", reels=reels)
    return [*sections, clips] if reels else sections


def _told(data: ProbeDataset, target: str, labels: pd.Series, reels: Sequence[pages.Reel]) -> pd.DataFrame:
    """What is said of each token of a view: the clip that it is of, where it is, its label, and where the clip is to be seen."""
    rows, seen = shown_rows(data, target), looked_into(reels, "clip")
    clips = [_clip(data.clips[place]) for place in data.clip[rows]]
    tokens = [f"frame {frame}, row {row}, column {column}" for frame, row, column in data.position[rows]]
    return pd.DataFrame({"clip": clips, "token": tokens, "label": labels, REELS: [seen.get(clip, ()) for clip in clips]})
