"""The page of the noise experiment: what a disturbance at a step and at a frame costs, at the paper's and at equal dose."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Finding, Number, decide
from cos_interp.analyses.driver.statistics import bootstrap, by_item, curve, mean_number, paired
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.noise import NoiseFacts
from cos_interp.reports.figures import Curve, Panel, panels

NAMES = {
    "step": "all frames, one step", "step-one-frame": "one frame, one step", "step-spread": "all frames, one step, 1/F energy",
    "frame": "one frame, every step", "frame-few-steps": "one frame, F steps",
}  # fmt: skip
LOST = 0.5  # the paper's drop from 0.685 to below 0.3 loses more than this share
CLAIM_STEP = "Noise at one step, in all frames, destroys the result: 0.685 drops below 0.3 (3.2)"
CLAIM_FRAME = "Noise in one frame at every step costs much less than noise in all frames at one step (3.2)"
QUESTION = (
    "What does it cost to put noise into all frames at one step, and into one latent frame at every step? The paper's two "
    "doses differ; so each is also run with the energy of the other: one drawn frame at one step against all frames with 1/F of "
    "the energy, and one frame at F spread steps against all frames at one step (F: number of latent frames)."
)
MODES = (
    "Modes: replace, x_t becomes noise of size 1 (the paper's words; at a late step that is far more noise than the model ever "
    "meets there); add, dose x sigma x noise on top; renoise, the clean estimate is kept and its noise drawn again, so the state "
    "stays one that the model knows; shuffle, tokens change places. Dose 1 of renoise at the first step is a run from "
    "another noise: the scale of what chance does."
)

LAST = (
    "Noise at a frame at every step includes the last step, after which nothing can remove it: except with renoise, that frame "
    "stays noisy in the video whatever the model does. The table below has the distance of the other frames: what reached them."
)


def scored(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Rows with a ``score``: 1 for solved and 0 for not; without a verifier, 1 minus the distance to the undisturbed latent."""
    if rows.status.notna().all():
        return rows.assign(score=(rows.status == "solved").astype(float)), "solved"
    return rows.assign(score=1 - rows.distance), "closeness (1 - distance)"


def per_problem(rows: pd.DataFrame, kind: str, mode: str, dose: float) -> pd.Series:
    """Mean score of each problem over the steps or frames of one kind of disturbance."""
    part = rows[(rows.kind == kind) & (rows["mode"] == mode) & (rows.dose == dose)]
    return part.groupby("problem").score.mean()


def lost_share(base: pd.Series, disturbed: pd.Series) -> Number:
    """``1 - sum(disturbed) / sum(undisturbed)`` over problems, with a bootstrap interval. NaN where nothing was solved."""
    both = pd.concat([base, disturbed], axis=1, join="inner").to_numpy(float)

    def lost(items: Sequence) -> float:
        before = sum(b for b, _ in items)
        return 1 - sum(d for _, d in items) / before if before else float("nan")

    return bootstrap(list(both), lost)


def findings(rows: pd.DataFrame, modes: tuple[str, ...], dose: float, label: str) -> list[Finding]:
    """Two findings for each mode that the claims are about: the literal one and the one that stays on the model's states."""
    base = rows[rows.kind == "none"].set_index("problem").score
    out = []
    for mode in [m for m in modes if m in ("replace", "renoise")] or modes[:1]:
        by = {kind: per_problem(rows, kind, mode, dose) for kind in NAMES}
        if label == "solved":
            out.append(_step_costs(mode, base, by))
        out.append(_frame_costs_less(mode, by, label))
    return out


def _step_costs(mode: str, base: pd.Series, by: dict[str, pd.Series]) -> Finding:
    lost = lost_share(base, by["step"])
    return Finding(
        CLAIM_STEP, decide(lost.low - LOST, lost.high - LOST),
        f"{mode}: solved {mean_number(base)} undisturbed and {mean_number(by['step'])} with noise at a step (mean over the "
        "steps), a lost share of",
        lost, "lost share with 1/F of the energy, all frames", lost_share(base, by["step-spread"]),
        f"the interval of the lost share lies above {LOST}; below it: refuted",
    )  # fmt: skip


def _frame_costs_less(mode: str, by: dict[str, pd.Series], label: str) -> Finding:
    more, decisive = paired(by["frame"], by["step"]), mode == "renoise"
    rule = "the interval of the paired difference lies above 0"
    if not decisive:
        rule += f"; {mode} decides nothing: its noise of the last step stays in the frame, whatever the model does"
    return Finding(
        CLAIM_FRAME, decide(more.low, more.high) if decisive else "not testable",
        f"{mode}: {label} {mean_number(by['frame'])} with noise in one frame at every step, higher than at one step in all "
        "frames by",
        more, "the same at equal energy (one frame at F steps)", paired(by["frame-few-steps"], by["step"]), rule,
    )  # fmt: skip


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows, label = scored(result.rows)
    config, facts = result.config, result.first(NoiseFacts)
    modes, doses = config.modes, config.doses
    found = findings(rows, modes, doses[0], label)
    sections = [
        _by_step(rows, modes, doses, "score", label, facts.sigmas),
        _by_frame(rows, modes, doses, label),
        pages.Section("Doses", caption="Energy: summed square of all displacements, per element.", table=dose_table(rows)),
        _by_step(rows, modes, doses, "distance", "|final - undisturbed| / |undisturbed|", facts.sigmas),
        pages.Section("Videos", caption="Rows: disturbances. Columns: pixel frames.", clips=_clips(result, store)),
    ]
    title, source = "Noise at a step, noise at a frame", "CoS section 3.2, figures 3a and 3b"
    return pages.build(result, title, QUESTION, source, found, sections, notes(label, facts))


def notes(label: str, facts: NoiseFacts) -> list[str]:
    out = [MODES, LAST]
    if label != "solved":
        out.append("These problems have no verifier: the score is the closeness of the final latent to the undisturbed one.")
    if "FlowMatchEuler" not in facts.scheduler:
        out.append(
            f"{facts.scheduler} keeps earlier model outputs, which are not disturbed and repair part of the damage; "
            "load FlowMatchEulerDiscreteScheduler for the plain effect."
        )
    return out


def _by_step(
    rows: pd.DataFrame, modes: tuple[str, ...], doses: list[float], value: str, label: str, sigmas: Sequence[float]
) -> pages.Section:
    made, whole = [], by_item(rows[rows.kind == "none"], value)
    steps = sorted(rows.step.dropna().astype(int).unique())
    ticks = {int(k): f"{k}\n{sigmas[k]:.2f}" for k in steps}
    level = pd.DataFrame({"step": [steps[0], steps[-1]], "mean": [whole.value] * 2})
    for mode in modes:
        curves = [Curve("undisturbed", level, "--")] if value == "score" else []
        for kind in ("step", "step-one-frame", "step-spread"):
            for dose in doses:
                part = rows[(rows.kind == kind) & (rows["mode"] == mode) & (rows.dose == dose)]
                name = NAMES[kind] + (f", dose {dose:g}" if len(doses) > 1 else "")
                curves.append(Curve(name, curve(part.astype({"step": int}), value), ":" if dose != doses[0] else "-"))
        bounds = (-0.03, 1.03) if value == "score" and label == "solved" else None
        made.append(Panel(mode, curves, "step", "disturbed step, sigma", label, ticks, bounds))
    title = "Noise at a step" if value == "score" else "Distance of the final latent"
    return pages.Section(title, panels(made), "Bands: 95 % bootstrap over items. Sigma below the step.")


def _by_frame(rows: pd.DataFrame, modes: tuple[str, ...], doses: list[float], label: str) -> pages.Section:
    made = []
    for kind in ("frame", "frame-few-steps"):
        part = rows[(rows.kind == kind) & (rows.dose == doses[0])].dropna(subset="frame").astype({"frame": int})
        curves = [Curve(mode, curve(part[part["mode"] == mode], "score", "frame")) for mode in modes]
        frames = {int(f): str(f) for f in sorted(part.frame.unique())}
        bounds = (-0.03, 1.03) if label == "solved" else None
        made.append(Panel(NAMES[kind], curves, "frame", "disturbed latent frame", label, frames, bounds))
    caption = "A latent frame spans several pixel frames; frame 0 is the given picture where the pipeline takes one."
    return pages.Section("Noise at a frame", panels(made), caption)


def dose_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Score, distance and energy of every kind, mode and dose, over all its steps or frames."""
    out = []
    disturbed = rows[rows.kind != "none"]
    for (mode, kind, dose), part in disturbed.groupby(["mode", "kind", "dose"], sort=False):
        row = {"mode": mode, "noise": NAMES[kind], "dose": f"{dose:g}", "energy": f"{part.energy.mean():.3f}"}
        out.append({**row, "score": str(by_item(part, "score")), "distance": str(by_item(part, "distance"))})
        if part.distance_elsewhere.notna().any():
            out[-1]["distance, other frames"] = str(by_item(part, "distance_elsewhere"))
    return pd.DataFrame(out)


def _clips(result: AnalysisResult, store: RunStore) -> list[pages.Clip]:
    clips = []
    for unit, facts in result.units_of(NoiseFacts).items():
        if facts.axes:
            text = f"“{facts.prompt}”. From above: {'; '.join(facts.shown)}"
            clips.append(pages.Clip(unit, text, pages.strip(store.tensors(unit)["frames"].numpy())))
    return clips
