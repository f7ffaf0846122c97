"""What the energy maps and the ablations of layers found. Knows rows, not models."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.facts import RunFacts
from cos_interp.analyses.driver.findings import Finding, Number, decide
from cos_interp.analyses.driver.statistics import by_item, curve, mean_number, paired
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.problems import spread
from cos_interp.interp.errors import InterpError
from cos_interp.reports.figures import Curve, Panel, matrix_maps, panels

TITLE = "Layers: energy and ablation"
SOURCE = "CoS section 5.1, figure 6a; causal part: paper's window of layers 20 to 29 of 40"
QUESTION = (
    "Where is the residual stream long, layer by layer, and which layers does the answer need? Energy is the L2 norm of a token "
    "over its channels. An ablation replaces what a block adds to the residual stream: by its mean over tokens, by another "
    "item's update, or by nothing (skip); random puts a random direction of the same norm in its place."
)
TURN = 0.25  # relative depth of layer 9 or 10 of 40, from which on the paper sees the foreground
WINDOW = (0.5, 0.75)  # relative depth of layers 20 to 29 of 40


def deep(rows: pd.DataFrame, low: float, high: float = 1.0) -> pd.Series:
    """Rows of layers whose relative depth is in ``[low, high)``; layer 20 of 40 has depth 0.5."""
    depth = rows.layer.astype(float) / rows.layers.astype(float)
    return (depth >= low) & (depth < high)


def energy_of(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows.measure == "energy"]


def ablations_of(rows: pd.DataFrame) -> pd.DataFrame:
    found = rows[(rows.measure == "ablation") & (rows.kind != "own")]
    return found.assign(loss=found.solved_plain.astype(float) - found.solved.astype(float))


# --- findings --------------------------------------------------------------------------------------------------------


def findings(rows: pd.DataFrame) -> list[Finding]:
    energy, ablations = energy_of(rows), ablations_of(rows)
    found = []
    if "energy_contrast" in energy:
        found += [_background(energy), _turn(energy, "energy", "energy"), _turn(energy, "update", "size of the block's update")]
    return found + _window(ablations)


def contrast_gain(energy: pd.DataFrame, column: str) -> Number:
    """Mean contrast of the layers from TURN on minus that of the layers before, paired by problem."""
    means = [energy[keep].groupby("problem")[column].mean() for keep in (deep(energy, TURN), deep(energy, 0, TURN))]
    return paired(*means)


def excess(energy: pd.DataFrame, what: str) -> pd.DataFrame:
    """Adds ``excess``: contrast of ``energy`` or ``update`` beyond that of the same cells at random places."""
    return energy.assign(excess=energy[f"{what}_contrast"] - energy[f"{what}_control"])


def _turn(energy: pd.DataFrame, what: str, text: str) -> Finding:
    own = excess(energy, what)
    gain, by_layer = contrast_gain(own, "excess"), own.groupby("layer").excess.mean()
    return Finding(
        f"From about layer 9 of 40 on the focus moves from the background to the foreground (5.1), by {text}",
        decide(gain.low, gain.high),
        f"z-scored {text} of things above background, beyond the control, grows from the layers before relative depth 0.25 to "
        f"those after (largest in layer {int(by_layer.idxmax())}: {by_layer.max():.2f}) by", gain,
        "the same cells at random places", contrast_gain(own, f"{what}_control"),
        "the interval of the paired difference lies above 0",
    )  # fmt: skip


def _background(energy: pd.DataFrame) -> Finding:
    early = excess(energy, "energy")[deep(energy, 0, TURN)]
    number = by_item(early, "excess")
    return Finding(
        "The first layers (0 to 9 of 40) attend to the background and the global structure (5.1)",
        decide(-number.high, -number.low),
        "z-scored energy of things minus background in the first quarter of layers, beyond the control", number,
        "the same cells at random places", by_item(early, "energy_control"),
        "reproduced when the interval lies below 0 (the background has more), refuted when it lies above",
    )  # fmt: skip


def window_gain(ablations: pd.DataFrame, kind: str, value: str) -> Number:
    """Mean effect of ablating a layer of the paper's window minus that of the other layers, paired by problem."""
    own = ablations[(ablations.kind == kind) & (ablations.unit == "layer")]
    inside = deep(own, *WINDOW)
    return paired(own[inside].groupby("problem")[value].mean(), own[~inside].groupby("problem")[value].mean())


def _window(ablations: pd.DataFrame) -> list[Finding]:
    """The paper's window by the solved share and, since that is 0 once anything breaks, by the distance of the latent."""
    kinds = [k for k in ("skip", "mean", "resample") if (ablations.kind == k).any()]
    values = {"loss": "solved share lost", "distance": "distance of the final latent"}
    if not kinds:
        return []
    own = ablations[(ablations.kind == kinds[0]) & (ablations.unit == "layer")]
    return [_window_finding(ablations, own, v, text) for v, text in values.items() if own[v].notna().any()]


def _window_finding(ablations: pd.DataFrame, own: pd.DataFrame, value: str, text: str) -> Finding:
    kind = str(own.kind.iloc[0])
    gain, worst = window_gain(ablations, kind, value), own.groupby("layer")[value].mean()
    return Finding(
        f"The middle layers (20 to 29 of 40) do the reasoning (window named with the ensemble, 6), by {text}",
        decide(gain.low, gain.high),
        f"{text} by ablating ({kind}) one layer of relative depth 0.5 to 0.75, mean over the spans of steps, minus that by "
        f"any other layer (from {worst.min():.2f} in layer {int(worst.idxmin())} to {worst.max():.2f} in {int(worst.idxmax())})",
        gain, "random directions of the same norm in the same layers", window_gain(ablations, "random", value),
        "the interval of the paired difference lies above 0",
    )  # fmt: skip


def identity_note(rows: pd.DataFrame) -> str:
    """Raises InterpError when a run whose blocks got their own updates back did not stay as it was."""
    own = rows[(rows.measure == "ablation") & (rows.kind == "own")]
    worst = float(own.distance.max())
    if worst:
        raise InterpError(
            f"a run whose blocks got their own updates moved by {worst:.2e} instead of exactly 0: the model is not deterministic "
            "here; run it in a deterministic mode"
        )
    return f"Every block given its own update: distance exactly 0 in all {len(own)} runs."


# --- page ------------------------------------------------------------------------------------------------------------


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows = result.rows
    energy, ablations = energy_of(rows), ablations_of(rows)
    over = "other items' tokens" if result.config.mean_over == "items" else "the run's own tokens"
    notes = [identity_note(rows), f"Mean ablation: the mean is over {over}, in the same layer and step."]
    judged = not ablations.solved.isna().all() if len(ablations) else False
    if not judged:
        notes.append(
            "These prompts have no verifier: there are energy maps and distances, but no solved share and no foreground."
        )
    sections = [_energy(energy)]
    if "energy_contrast" in energy:
        sections.append(_foreground(energy))
    if len(ablations):
        sections += [
            _layers(ablations, "distance"),
            *([_layers(ablations, "solved")] if judged else []),
            _frozen(ablations, judged),
        ]
    sections += _maps(result, store)
    return pages.build(result, TITLE, QUESTION, SOURCE, findings(rows), sections, notes)


def _axis(rows: pd.DataFrame) -> dict:
    return {"along": "layer", "xlabel": "layer", "ticks": {int(k): str(int(k)) for k in sorted(rows.layer.dropna().unique())}}


def _by_step(rows: pd.DataFrame, value: str, count: int = 4) -> list[Curve]:
    """A curve over layers for each of some spread steps."""
    sigmas = rows.groupby("step").sigma.first()
    steps = spread(len(sigmas), count)
    return [Curve(f"step {k}, sigma {sigmas[k]:.2f}", curve(rows[rows.step == k], value, "layer")) for k in steps]


def _energy(energy: pd.DataFrame) -> pages.Section:
    axis = _axis(energy)
    figure = panels([
        Panel("energy", _by_step(energy, "energy_mean"), ylabel="mean norm of a token", **axis),
        Panel("block update", _by_step(energy, "update_mean"), ylabel="mean norm of the update", **axis),
    ])  # fmt: skip
    return pages.Section("Energy by layer", figure, "Bands: 95 % bootstrap over items. The norm grows with depth in any network.")


def _foreground(energy: pd.DataFrame) -> pages.Section:
    axis = _axis(energy)
    lines = [
        Curve("things", curve(energy, "energy_contrast", "layer")),
        Curve("same cells at random places", curve(energy, "energy_control", "layer"), "--"),
    ]
    figure = panels([
        Panel("contrast, all steps", lines, ylabel="z-score", **axis),
        Panel("contrast by step", _by_step(energy, "energy_contrast"), ylabel="z-score", **axis),
        Panel("ratio of energies by step", _by_step(energy, "energy_ratio"), ylabel="things / background", **axis),
        Panel("update: contrast by step", _by_step(energy, "update_contrast"), ylabel="z-score", **axis),
    ])  # fmt: skip
    caption = (
        "Things: tokens that show an object in the true video; background: floor, wall and board. Contrast: mean z-score of the "
        "things minus that of the background, within layer and step. Ratio: mean energy of the things over the background's."
    )
    return pages.Section("Foreground against background", figure, caption)


def _layers(ablations: pd.DataFrame, value: str) -> pages.Section:
    """Layer x kind figures: by kind over all steps, and by span of steps for each kind."""
    own = ablations[ablations.unit == "layer"]
    axis = {**_axis(own), "ylabel": "share solved" if value == "solved" else "|ablated - plain| / |plain|"}
    if value == "solved":
        axis["bounds"] = (-0.03, 1.03)
    own = own.assign(solved=own.solved.astype(float))
    widest = own[own.span == own.span.iloc[0]]
    kinds = [Curve(str(k), curve(p, value, "layer"), "--" if k == "random" else "-") for k, p in _groups(widest, "kind")]
    made = [Panel(f"one layer, {_span_name(widest.span.iloc[0])}", kinds, **axis)]
    for kind, part in _groups(own, "kind"):
        spans = [Curve(_span_name(str(s)), curve(p, value, "layer")) for s, p in _groups(part, "span")]
        made.append(Panel(f"{kind}, by steps", spans, **axis))
    caption = "One layer ablated at a time. Random is the control: a random direction with the norm of the block's own update."
    title = "Ablation: solved share" if value == "solved" else "Ablation: distance of the final latent"
    if value == "solved":
        caption += f" Without ablation: {by_item(own, 'solved_plain')}."
    return pages.Section(title, panels(made), caption)


def _groups(rows: pd.DataFrame, by: str) -> Iterable[tuple[object, pd.DataFrame]]:
    return rows.groupby(by, sort=False)


def _span_name(span: str) -> str:
    return "all steps" if span == "all" else f"{span} steps"


def _frozen(ablations: pd.DataFrame, judged: bool) -> pages.Section:
    """Thirds of the layers frozen, as a table of steps x thirds."""
    out = []
    for (kind, span, third), part in ablations[ablations.unit == "third"].groupby(["kind", "span", "third"], sort=False):
        row = {"replaced by": "nothing (skipped)" if kind == "skip" else "random directions", "steps": span, "layers": third}
        row["distance"] = str(mean_number(part.distance))
        if judged:
            by = part.groupby("problem")
            row["solved"] = str(by_item(part.assign(solved=part.solved.astype(float)), "solved"))
            row["lost against plain"] = str(paired(by.solved_plain.mean(), by.solved.mean()))
        out.append(row)
    caption = "Early, middle and late thirds of the layers, in early, middle and late thirds of the steps, and in all."
    return pages.Section("Frozen thirds", caption=caption, table=pd.DataFrame(out) if out else None)


def _maps(result: AnalysisResult, store: RunStore) -> list[pages.Section]:
    """Energy maps of the first item of each task: layers down, latent frames across, at one early and one late step."""
    sections = []
    for unit, facts in result.units_of(RunFacts).items():
        if "frames" not in facts.axes:
            continue
        tensors = store.tensors(unit)
        energy = tensors["energy"].numpy()
        step = spread(len(energy), 3)[1]
        layers = spread(energy.shape[1], 5)
        figure = matrix_maps(
            [(f"layer {at}", _row_of_maps(energy[step, at])) for at in layers], "frame and column", "row", "z-score"
        )
        caption = (
            f"“{facts.prompt}”: energy, z-scored within a layer, step {step} (sigma {facts.sigmas[step]:.2f}); latent "
            "frames from left to right."
        )
        sections.append(pages.Section(f"Energy maps, {unit}", figure, caption, clips=[_clip(unit, tensors["frames"].numpy())]))
    return sections


def _row_of_maps(energy: np.ndarray) -> pd.DataFrame:
    """``[frame, row, col]`` as one table, frames side by side with an empty column between; drawn with row 0 on top."""
    z = (energy - energy.mean()) / max(float(energy.std()), 1e-12)
    gap = np.full((*z.shape[:2], 1), np.nan)
    wide = np.concatenate([np.concatenate([frame, empty], 1) for frame, empty in zip(z, gap, strict=True)], 1)[:, :-1]
    size = z.shape[2] + 1
    names = [f"f{c // size}" if c % size == z.shape[2] // 2 else " " * (c % size) for c in range(wide.shape[1])]
    rows = range(len(wide))[::-1]  # the figure draws the first one at the bottom
    return pd.DataFrame(wide[::-1], index=rows, columns=names)


def _clip(unit: str, frames: np.ndarray) -> pages.Clip:
    return pages.Clip(unit, "generated video without ablation, pixel frames from left to right", pages.strip(frames[None]))
