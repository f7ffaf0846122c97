"""The page of the noise experiment: what a disturbance at a step and at a frame costs, at the paper's and at equal dose."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean, PairedShares, Share
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.driver.kept import kept_clips, videos
from cos_interp.analyses.driver.rules import rules
from cos_interp.analyses.driver.statistics import curve, points
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.kit.verdicts import outcomes, whole
from cos_interp.analyses.noise import NoiseFacts, label
from cos_interp.reports.figures import Curve, Panel, panels

NAMES = {
    "step": "all frames, one step", "step-one-frame": "one frame, one step", "step-spread": "all frames, one step, 1/F energy",
    "frame": "one frame, every step", "frame-few-steps": "one frame, F steps",
}  # fmt: skip
SOLVED, FEW = "solved", "frame-few-steps"
STEP_RULES = {"replace": "noise.step", "renoise": "noise.step-renoise"}
FRAME_RULES = {"renoise": "noise.frame", "replace": "noise.frame-replace"}
EQUAL = 1.25  # amounts of noise that differ by no more than this factor count as equal
QUESTION = (
    "What does it cost to put noise into all frames at one step, and into one latent frame at every step? The paper's two "
    "doses differ; so each is also run with the energy of the other: one drawn frame at one step against all frames with 1/F of "
    "the energy, and one frame at F steps against all frames at one of these steps (F: number of latent frames)."
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

VIDEOS = (
    "Final videos with noise in all frames at one step, and in one latent frame at every step, beside the undisturbed one. "
    "Table: what is read in them, of every item; those with a link have their videos here."
)
SAID = {"distance to undisturbed": "distance"}


def scored(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Rows with a ``score``: 1 for solved, 0 for not, NaN where a scorer failed; without a verifier, 1 minus the distance to the
    undisturbed latent."""
    if rows.status.notna().all():
        return rows.assign(score=outcomes(rows)), SOLVED
    return rows.assign(score=1 - rows.distance), "closeness (1 - distance)"


def of_kind(rows: pd.DataFrame, kind: str, mode: str, dose: float, steps: Sequence[int] | None = None) -> pd.DataFrame:
    """Rows of one kind of disturbance; those of single steps at some of them only."""
    part = rows[(rows.kind == kind) & (rows["mode"] == mode) & (rows.dose == dose)]
    return part if steps is None else part[part.step.isin(steps)]


def beside(first: pd.Series, second: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Two columns over the items that both have, in one order."""
    both = pd.concat([first, second], axis=1, join="inner")
    return both.iloc[:, 0], both.iloc[:, 1]


def undisturbed(rows: pd.DataFrame) -> pd.Series:
    return rows[rows.kind == "none"].set_index("problem").score


def lost(rows: pd.DataFrame, kind: str, mode: str, dose: float, step: int) -> PairedShares:
    """How much more often an item is solved undisturbed than with noise at a step."""
    return PairedShares(*beside(undisturbed(rows), of_kind(rows, kind, mode, dose, [step]).set_index("problem").score))


def findings(result: AnalysisResult, rows: pd.DataFrame, label: str) -> list[Finding]:
    """What the rules say of the modes that they are about, at the first dose."""
    dose, few = result.config.doses[0], result.first(NoiseFacts).few
    steps = result.config.num_inference_steps
    out = []
    if label == SOLVED:
        out += [_step_costs(result, rows, m, dose, steps // 2) for m in STEP_RULES if m in result.config.modes]
        out += [_frame_costs_less(result, rows, FRAME_RULES[m], m, dose, few) for m in FRAME_RULES if m in result.config.modes]
    if "renoise" in result.config.modes:
        keys = {FEW: "noise.frame-closeness"} if label != SOLVED else {"frame": "noise.frame-every"}
        out += [_frame_costs_less(result, rows, key, "renoise", dose, few, kind) for kind, key in keys.items()]
    return out


def _step_costs(result: AnalysisResult, rows: pd.DataFrame, mode: str, dose: float, step: int) -> Finding:
    disturbed = of_kind(rows, "step", mode, dose, [step])
    base, key = Share(undisturbed(rows)), STEP_RULES[mode]
    return result.judge(
        key, lost(rows, "step", mode, dose, step),
        f"{mode}: solved {base.number()} undisturbed, {Share(disturbed.score).number()} with noise in all frames at step {step}, "
        "lost",
        lost(rows, "step", mode, dose, 0).number(), no_step(base, disturbed, rules()[key].smallest, step),
    )  # fmt: skip


def no_step(base: Share, disturbed: pd.DataFrame, smallest: float, step: int) -> str | None:
    """Why noise at the step can cost nothing that would be seen; None where it can."""
    if disturbed.empty:
        return f"step {step}, which the rule reads, was not disturbed"
    if not disturbed.energy.mean() > 0:
        return f"no noise was put in at step {step}"
    if base.interval()[0] <= smallest:
        return f"only {base.number()} are solved undisturbed: {smallest:g} of all may not be there to lose"
    return None


def _frame_costs_less(
    result: AnalysisResult, rows: pd.DataFrame, key: str, mode: str, dose: float, few: Sequence[int], kind: str = FEW
) -> Finding:
    """Noise in a frame (mean over the frames of an item) against noise in all frames at a step (mean over the steps ``few``)."""
    frame, step = of_kind(rows, kind, mode, dose), of_kind(rows, "step", mode, dose, few)
    by_frame, by_step = beside(*(part.groupby("problem").score.agg(whole) for part in (frame, step)))
    base, same = beside(undisturbed(rows), by_step)
    share = (0, 1) if rows.score.isin((0, 1)).all() else None
    one, all_of_them = (Mean(scores, bounds=share).number() for scores in (by_frame, by_step))
    costs, at = Mean(base - same), ", ".join(map(str, few))
    return result.judge(
        key, Mean(by_frame - by_step),
        f"{mode}: score {one} with noise in one frame, {'every step' if kind == 'frame' else 'steps ' + at}; "
        f"{all_of_them} with noise in all frames at one of steps {at}, which costs {costs.number()}; energy "
        f"{frame.energy.mean():.2f} and {step.energy.mean():.2f}; difference",
        costs.number(), no_frame(frame, step, few, kind == FEW) or no_cost(costs, rules()[key].smallest),
    )  # fmt: skip


def no_frame(frame: pd.DataFrame, step: pd.DataFrame, few: Sequence[int], equal: bool) -> str | None:
    """Why noise in a frame was not what is to be held against noise at a step; None where it was."""
    if frame.empty or step.empty or set(step.step) != set(few):
        return f"frames, and steps {', '.join(map(str, few))}, must all be disturbed"
    energies = frame.energy.mean(), step.energy.mean()
    if not min(energies) > 0:
        return "no noise was put in"
    if equal and max(energies) / min(energies) > EQUAL:
        return f"the amounts of noise differ: energy {energies[0]:.2f} in a frame, {energies[1]:.2f} at a step"
    return None


def no_cost(costs: Mean, smallest: float) -> str | None:
    """Why nothing can cost less than noise at a step does: it costs less than the difference that is asked for, or what it costs
    was not measured."""
    if not costs.n:
        return "what noise at a step costs is not known without a verdict on the undisturbed videos"
    top = costs.interval()[1] if costs.varies() else costs.value
    return f"noise at a step costs at most {top:.2f}: nothing costs less by {smallest:g}" if top < smallest else None


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows, label = scored(result.rows)
    config, facts = result.config, result.first(NoiseFacts)
    modes, doses = config.modes, config.doses
    found = findings(result, rows, label)
    sections = [
        _by_step(rows, modes, doses, "score", label, facts.sigmas),
        *_losses(rows, modes, doses[0], label, facts.sigmas),
        _by_frame(rows, modes, doses, label),
        pages.Section("Doses", caption="Energy: summed square of all displacements, per element.", table=dose_table(rows)),
        _by_step(rows, modes, doses, "distance", "|final - undisturbed| / |undisturbed|", facts.sigmas),
        _videos(result, rows, store),
    ]
    title, source = "Noise at a step, noise at a frame", "CoS section 3.2, figures 3a and 3b"
    said = notes(label, facts) + ([] if found else ["The rules are about replace and renoise: other modes have no verdict."])
    return pages.build(result, title, QUESTION, source, found, sections, said, ("cause",))


def notes(label: str, facts: NoiseFacts) -> list[str]:
    out = [MODES, LAST]
    if label != SOLVED:
        out.append("These problems have no verifier: the score is the closeness of the final latent to the undisturbed one.")
    if "FlowMatchEuler" not in facts.scheduler:
        out.append(
            f"{facts.scheduler} keeps earlier model outputs, which are not disturbed and repair part of the damage; "
            "load FlowMatchEulerDiscreteScheduler for the plain effect."
        )
    return out


def _by_step(
    rows: pd.DataFrame, modes: tuple[str, ...], doses: Sequence[float], value: str, label: str, sigmas: Sequence[float]
) -> pages.Section:
    made, shares = [], value == "score" and label == SOLVED
    steps = sorted(rows.step.dropna().astype(int).unique())
    ticks = {int(k): f"{k}\n{sigmas[k]:.2f}" for k in steps}
    level = pd.DataFrame({"step": [steps[0], steps[-1]], "mean": [rows[rows.kind == "none"][value].mean()] * 2})
    for mode in modes:
        curves = [Curve("undisturbed", level, "--")] if value == "score" else []
        for kind in ("step", "step-one-frame", "step-spread"):
            for dose in doses:
                part = of_kind(rows, kind, mode, dose).astype({"step": int})
                name = NAMES[kind] + (f", dose {dose:g}" if len(doses) > 1 else "")
                curves.append(Curve(name, _line(part, value, "step", shares), ":" if dose != doses[0] else "-"))
        made.append(Panel(mode, curves, "step", "disturbed step, sigma", label, ticks, (-0.03, 1.03) if shares else None))
    title = "Noise at a step" if value == "score" else "Distance of the final latent"
    return pages.Section(title, panels(made), f"{_bands(rows, shares)} Sigma below the step; at the first noise is another seed.")


def _bands(rows: pd.DataFrame, shares: bool) -> str:
    return f"Bands: {'exact 95 % interval of a share' if shares else '95 % intervals'} over {rows.problem.nunique()} items."


def _line(rows: pd.DataFrame, value: str, along: str, shares: bool) -> pd.DataFrame:
    """A curve with its band: one value an item at every point."""
    if not shares:
        return curve(rows, value, along)
    return points({at: Share(part[value]).number() for at, part in rows.groupby(along)}, along)


def _losses(rows: pd.DataFrame, modes: tuple[str, ...], dose: float, label: str, sigmas: Sequence[float]) -> list[pages.Section]:
    if label != SOLVED:
        return []
    caption = (
        "Solved undisturbed less solved with noise at the step, on the same items; Newcombe's 95 % interval, McNemar's exact p."
    )
    return [pages.Section("What noise at a step costs", caption=caption, table=loss_table(rows, modes, dose, sigmas))]


def loss_table(rows: pd.DataFrame, modes: tuple[str, ...], dose: float, sigmas: Sequence[float]) -> pd.DataFrame:
    """The paired loss of every mode and step, at the first dose, and with 1/F of its energy."""
    out = []
    for mode in modes:
        for step in sorted(of_kind(rows, "step", mode, dose).step.astype(int).unique()):
            whole, less = (lost(rows, kind, mode, dose, int(step)) for kind in ("step", "step-spread"))
            row = {"mode": mode, "step": int(step), "sigma": f"{sigmas[step]:.2f}", "lost": str(whole.number())}
            out.append({**row, "p": f"{whole.mcnemar:.3g}", "lost with 1/F of the energy": str(less.number())})
    return pd.DataFrame(out)


def _by_frame(rows: pd.DataFrame, modes: tuple[str, ...], doses: Sequence[float], label: str) -> pages.Section:
    made, shares = [], label == SOLVED
    for kind in ("frame", "frame-few-steps"):
        part = rows[(rows.kind == kind) & (rows.dose == doses[0])].dropna(subset="frame").astype({"frame": int})
        curves = [Curve(mode, _line(part[part["mode"] == mode], "score", "frame", shares)) for mode in modes]
        frames = {int(f): str(f) for f in sorted(part.frame.unique())}
        made.append(
            Panel(NAMES[kind], curves, "frame", "disturbed latent frame", label, frames, (-0.03, 1.03) if shares else None)
        )
    caption = "A latent frame spans several pixel frames; frame 0 is the given picture where the pipeline takes one."
    return pages.Section("Noise at a frame", panels(made), f"{caption} {_bands(rows, shares)}")


def dose_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Score, distance and energy of every kind, mode and dose, over all its steps or frames."""
    out = []
    disturbed = rows[rows.kind != "none"]
    for (mode, kind, dose), part in disturbed.groupby(["mode", "kind", "dose"], sort=False):
        row = {"mode": mode, "noise": NAMES[kind], "dose": f"{dose:g}", "energy": f"{part.energy.mean():.3f}"}
        out.append({**row, "score": str(_mean(part, "score")), "distance": str(_mean(part, "distance"))})
        if part.distance_elsewhere.notna().any():
            out[-1]["distance, other frames"] = str(_mean(part, "distance_elsewhere"))
    return pd.DataFrame(out)


def _mean(rows: pd.DataFrame, value: str) -> Number:
    """Over items, each first averaged over its steps or frames."""
    return Mean(rows.groupby("problem")[value].mean()).number()


def _videos(result: AnalysisResult, rows: pd.DataFrame, store: RunStore) -> pages.Section:
    """The disturbed videos beside the undisturbed one, and what is read in those of every item."""
    reels = [one.reel(say=SAID, at=_place) for one in kept_clips(result, store)]
    first = rows[(rows.kind == "none") | (rows.dose == result.config.doses[0])]
    return pages.Section("Videos", caption=VIDEOS, reels=reels, table=videos(first, label, reels))


def _place(name: str, row: Row) -> dict[str, str | int]:
    kind = row.get("kind")
    return {kind: int(row[kind])} if kind in ("step", "frame") else {}
