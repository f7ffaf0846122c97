"""What the energy maps and the ablations of layers found. Knows rows, not models."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.facts import RunFacts
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.rules import rules
from cos_interp.analyses.driver.statistics import by_item, curve, mean_number, paired
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.problems import spread
from cos_interp.analyses.kit.verdicts import whole
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


def findings(result: AnalysisResult) -> list[Finding]:
    energy, ablations = energy_of(result.rows), ablations_of(result.rows)
    found = []
    if "energy_contrast" in energy:
        found += [_background(result, energy), _turn(result, energy, "energy"), _turn(result, energy, "update")]
    return found + _window(result, ablations)


def excess(energy: pd.DataFrame, what: str) -> pd.Series:
    """Contrast beyond that of the same cells at random places of their frames, a row of ``energy`` each."""
    return energy[f"{what}_contrast"] - energy[f"{what}_control"]


def background(energy: pd.DataFrame) -> pd.Series:
    """How far the first quarter of layers raises the background over the things, beyond the first block's input; an item."""
    early = energy[deep(energy, 0, TURN)]
    return (excess(early, "start") - excess(early, "energy")).groupby(early.problem).mean()


def turn(energy: pd.DataFrame, what: str) -> pd.Series:
    """Excess of the layers from TURN on minus that of the layers before, of norms over each token's own mean; an item."""
    own = energy.assign(excess=excess(energy, f"{what}_own"))
    late, early = (own[keep].groupby("problem").excess.mean() for keep in (deep(own, TURN), deep(own, 0, TURN)))
    return (late - early).dropna()


def moved_turn(energy: pd.DataFrame, what: str) -> pd.Series:
    """:func:`turn` of the same cells at random places alone, which is subtracted in it."""
    control = f"{what}_own_control"
    late, early = (energy[keep].groupby("problem")[control].mean() for keep in (deep(energy, TURN), deep(energy, 0, TURN)))
    return (late - early).dropna()


def _background(result: AnalysisResult, energy: pd.DataFrame) -> Finding:
    early = energy[deep(energy, 0, TURN)]
    start = Mean((-excess(early, "start")).groupby(early.problem).mean().to_numpy(float))
    said = (
        f"z-scored energy of background above things, beyond the same cells at random places, in layers {_named(early)}; more "
        "than before the first block, by"
    )
    return result.judge("layers.background", Mean(background(energy).astype(float)), said, start.number())


def _turn(result: AnalysisResult, energy: pd.DataFrame, what: str) -> Finding:
    text = {"energy": "energy", "update": "size of the block's update"}[what]
    said = (
        f"z-scored {text} of things above background, each token against its own mean over layers and beyond the control, grows "
        f"from layers {_named(energy[deep(energy, 0, TURN)])} to those after, by"
    )
    control = Mean(moved_turn(energy, what).to_numpy(float)).number()
    return result.judge(f"layers.turn-{what}", Mean(turn(energy, what).astype(float)), said, control)


def _named(rows: pd.DataFrame) -> str:
    """First and last layer of some rows."""
    return f"{int(rows.layer.min())} to {int(rows.layer.max())}" if len(rows) else "(none)"


def window_gain(ablations: pd.DataFrame, kind: str, value: str) -> pd.Series:
    """Mean effect of ablating a layer of the paper's window minus that of the other layers; an item."""
    own = ablations[(ablations.kind == kind) & (ablations.unit == "layer")]
    inside = deep(own, *WINDOW)
    within, beside = (own[part].groupby("problem")[value].agg(whole) for part in (inside, ~inside))
    return (within - beside).dropna()


def _window(result: AnalysisResult, ablations: pd.DataFrame) -> list[Finding]:
    """By the solved share of items that are solved untouched and, where there is no verifier, by the distance of the latent."""
    kinds = [k for k in ("skip", "mean", "resample") if (ablations.kind == k).any()]
    if not kinds or not (ablations.kind == "random").any():  # without random directions there is no control
        return []
    values = {"loss": "solved share lost", "distance": "distance of the final latent"}
    return [
        _window_finding(result, ablations, kinds[0], value, text)
        for value, text in values.items()
        if ablations[value].notna().any()
    ]


def _window_finding(result: AnalysisResult, ablations: pd.DataFrame, kind: str, value: str, text: str) -> Finding:
    lost = None
    if value == "loss":  # what is not solved untouched has nothing to lose
        ablations, lost = telling(ablations[ablations.solved_plain == 1], kind)
    one = ablations[(ablations.unit == "layer") & ablations.kind.isin((kind, "random"))]
    own, random = (window_gain(ablations, k, value) for k in (kind, "random"))
    said = (
        f"{text} by ablating ({kind}) one layer of {_named(one[deep(one, *WINDOW)])}, mean over {_spans(one)}, minus that by "
        f"any other layer is {Mean(own.to_numpy(float)).number()}; more than of random directions, by"
    )
    gain = Mean((own - random).dropna().astype(float))
    unfit = lost or unfit_ablation(one, kind)
    return result.judge(f"layers.window-{value}", gain, said, Mean(random.to_numpy(float)).number(), unfit)


def _spans(rows: pd.DataFrame) -> str:
    return ", ".join(_span_name(str(span)) for span in rows.span.unique()) or "no steps"


def telling(solved: pd.DataFrame, kind: str) -> tuple[pd.DataFrame, str | None]:
    """The rows of the spans of steps that can tell layers apart by what they lose, and why there are none."""
    least = rules()["layers.window-loss"].smallest
    controlled = survived(solved, least)
    if len(solved) and controlled.empty:
        return controlled, "random directions lose the answers, whichever the layer and the steps"
    costly = costing(controlled, kind, least)
    if len(solved) and costly.empty:
        return costly, f"no layer loses more than {least:g} of the answers when it is ablated ({kind}), at any steps"
    return costly, None


def survived(ablations: pd.DataFrame, least: float) -> pd.DataFrame:
    """The rows of the spans of steps in which random directions leave so large a share of the answers, mean over layers: where
    they lose all in every layer, they are no control of a layer."""
    random = ablations[(ablations.kind == "random") & (ablations.unit == "layer")]
    left = random.astype({"solved": float}).groupby("span").solved.mean()
    return ablations[ablations.span.isin(left.index[left >= least])]


def costing(ablations: pd.DataFrame, kind: str, least: float) -> pd.DataFrame:
    """The rows of the spans of steps in which some layer costs more than that share of the answers: where none does, no layer can
    cost more than another, and such a span would halve what the others show."""
    own = ablations[(ablations.kind == kind) & (ablations.unit == "layer")]
    cost = own.groupby(["span", "layer"]).loss.mean().groupby("span").max()
    return ablations[ablations.span.isin(cost.index[cost > least])]


def unfit_ablation(one: pd.DataFrame, kind: str) -> str | None:
    """Why nothing can be said: the ablations changed no latent, or left no difference to be seen."""
    moved = one[one.kind == kind].distance
    return "the ablations changed no final latent" if len(moved) and not (moved > 0).any() else None


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
    return pages.build(result, TITLE, QUESTION, SOURCE, findings(result), sections, notes, ("cause", "correlation"))


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
    return pages.Section(
        "Energy by layer",
        figure,
        f"Bands: 95 % intervals over {energy.problem.nunique()} items. The norm grows with depth in any network.",
    )


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
        "things minus that of the background, within layer and step. Ratio: mean energy of things over background. Bands: "
        f"95 % over {energy.problem.nunique()} items. The verdicts' intervals are bootstrap-t over the same items; they compare "
        "with the first block's input and each token with its own mean over the layers, since some tokens are long throughout."
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
    names = [f"f{c // size} c{c % size}" if c % size < z.shape[2] else f"after f{c // size}" for c in range(wide.shape[1])]
    rows = range(len(wide))[::-1]  # the figure draws the first one at the bottom
    return pd.DataFrame(wide[::-1], index=rows, columns=names)


def _clip(unit: str, frames: np.ndarray) -> pages.Clip:
    return pages.Clip(unit, "generated video without ablation, pixel frames from left to right", pages.strip(frames[None]))
