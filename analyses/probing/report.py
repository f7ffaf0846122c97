"""The page of a probe run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.statistics import mean_number
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.probing import TransferFacts
from cos_interp.analyses.probing.data import dataset
from cos_interp.analyses.probing.findings import Depth, depths, order_findings, use_findings
from cos_interp.probes.dataset import ProbeDataset, layer_of
from cos_interp.probes.roles import BASELINES
from cos_interp.probes.views import view
from cos_interp.reports.figures import Curve, Panel, bars, matrix_maps, panels, scatters

QUESTION = (
    "Which layer, at which step, knows what? A linear probe is trained at every layer and step on whole clips and tested on "
    "others. Scores are balanced accuracy (chance is 1 / classes) or R2."
)
SOURCE = "CoS section 5.1; Hewitt & Liang 2019 (control task); Tenney et al. 2019 (expected layer); Belrose et al. 2023 (LEACE)"


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
    found = depths(scores, store, {f"step-{s:03d}": s for s in data.steps})
    use = rows[rows.table == "use"] if "use" in set(rows.table) else pd.DataFrame()
    findings = order_findings(found) + (use_findings(use) if len(use) else [])
    sections = [
        *_maps(scores, data),
        _lines(scores, data),
        _roles(found, scores, data),
        _balance(found, data),
        *_transfer(result, store, data, scores),
        *_used(use),
        *(_views(scores, data) if config.views else []),
    ]
    return pages.build(result, "Probes", QUESTION, SOURCE, findings, sections, notes)


def _notes(rows: pd.DataFrame) -> list[str]:
    if "why" not in rows:
        return []
    return sorted({f"Left out: {why}" for why in rows[rows.table == "left out"].why})


def _labels(data: ProbeDataset, every: int = 2) -> dict[int, str]:
    return {k: f"{k}\n{s:.2f}" if i % every == 0 else "" for i, (k, s) in enumerate(zip(data.steps, data.sigmas, strict=True))}


def _pivot(part: pd.DataFrame, value: str, data: ProbeDataset) -> pd.DataFrame:
    return part.pivot(index="layer", columns="step", values=value).rename(columns=_labels(data))


def _maps(scores: pd.DataFrame, data: ProbeDataset) -> list[pages.Section]:
    groups = list(scores.groupby("target", sort=False))
    made = [(f"{t} ({p.family.iloc[0]})", _pivot(p, "score", data)) for t, p in groups]
    scored = matrix_maps(made, "step, sigma", "layer", "score", columns=len(made))
    sections = [pages.Section("What is readable where", scored, "Score out of fold, by layer and step.")]
    if "selectivity" in scores:
        chosen = [(str(t), _pivot(p, "selectivity", data)) for t, p in groups]
        figure = matrix_maps(chosen, "step, sigma", "layer", "selectivity", diverging=True, columns=len(chosen))
        caption = "The score minus that of random labels by position: below 0 a probe reads the position better than the target."
        sections.append(pages.Section("Selectivity", figure, caption))
    return sections


def _lines(scores: pd.DataFrame, data: ProbeDataset) -> pages.Section:
    made = []
    ticks = {k: text for k, text in _labels(data).items() if text}
    for target, part in scores.groupby("target", sort=False):
        best = part.loc[part.groupby("step").score.idxmax()].sort_values("step")
        curves = [Curve("best layer", best.rename(columns={"score": "mean"})[["step", "mean", "low", "high"]])]
        for name in (b for b in BASELINES if b in part):
            by = part.groupby("step")[name].max().rename("mean").reset_index()
            curves.append(Curve(name, by, ":" if name in ("majority", "shuffled") else "--"))
        made.append(Panel(str(target), curves, "step", "step, sigma", "score", ticks))
    caption = (
        "The best layer of each step (band: 95 % bootstrap over clips) against what needs no model: the majority, shuffled "
        "labels, and the same probe on x_t, on the first frame's latent and on the token's position."
    )
    return pages.Section("Against the baselines", panels(made), caption)


def _roles(found: Sequence[Depth], scores: pd.DataFrame, data: ProbeDataset) -> pages.Section:
    sigma = dict(zip(data.steps, data.sigmas, strict=True))
    rows = []
    for depth in found:
        role = depth.role
        part = scores[scores.target == role.target]
        low, high = role.interval
        place = lambda at: "nowhere" if at is None else f"layer {at[0]}, step {at[1]} (sigma {sigma[at[1]]:.2f})"
        rows.append({
            "target": role.target, "family": role.family, "first reliable": place(role.first), "peak": place(role.peak),
            "score there": f"{role.score:.2f} [{role.low:.2f}, {role.high:.2f}]", "best baseline": role.baseline,
            "expected layer": f"{role.depth:.2f} [{low:.2f}, {high:.2f}]" if role.depth == role.depth else "adds nothing",
            "clips, tokens": f"{int(part.n_clips.iloc[0])}, {int(part.n_rows.iloc[0])}",
        })  # fmt: skip
    caption = (
        "First reliable: lowest layer, then step, whose interval lies above every baseline (for perception the first frame is no "
        "baseline but the source). Expected layer: mean layer of the gains over what a token holds before any layer, scores "
        "averaged over the steps."
    )
    return pages.Section("Roles of the layers", "", caption, pd.DataFrame(rows))


def _balance(found: Sequence[Depth], data: ProbeDataset) -> pages.Section:
    table = [
        {"target": d.role.target, "class": name, "tokens": count}
        for d in found
        for name, count in data.balance(d.role.target).items()
    ]
    return pages.Section(
        "Class balance", "", "Classes that occur in fewer clips than there are folds are not probed.", pd.DataFrame(table)
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
    for (target, edit), part in use.groupby(["target", "edit"], sort=False):
        solved, moved = mean_number(part.score.to_numpy(float)), mean_number(part.moved.to_numpy(float))
        rows.append({"name": f"{target}: {edit}", "mean": solved.value, "low": solved.low, "high": solved.high})
        table.append({"target": target, "edit": edit, "where": part["name"].iloc[0], "solved": str(solved), "moved": str(moved)})
    caption = (
        "Share of fresh items that are solved while the probe's directions are changed at one layer in all steps. erase: set to "
        "their mean; leace: all that a linear probe can read; steer: two standard deviations towards the last class; random: a "
        "change of the same size at every token, along directions of the activations that have nothing to do with the target. "
        "moved: relative change of the final latent."
    )
    return [pages.Section("Is it used?", bars(pd.DataFrame(rows), "solved"), caption, pd.DataFrame(table))]


def _views(scores: pd.DataFrame, data: ProbeDataset) -> list[pages.Section]:
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
        figure = scatters(made, "label", "norm" if values else str(target), categorical=not values)
        sections.append(pages.Section(f"Views: {target}", figure, "Probed tokens in two dimensions, coloured by the target."))
    return sections
