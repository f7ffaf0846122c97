"""What the commitment tests found, and their page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cos_interp.analyses.commitment.measure import DRAWS
from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.facts import LeftOut
from cos_interp.analyses.driver.findings import Finding, Verdict, decide
from cos_interp.analyses.driver.statistics import auc, bootstrap, by_item, curve, mean_number, paired
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.screening import screening_table
from cos_interp.reports.figures import Curve, Panel, panels, step_ticks


def committed_step(rows: pd.DataFrame) -> pd.Series:
    """By problem: the first tested step from which every re-noised run gives the same answer; NaN when there is none."""
    kept = rows.groupby(["problem", "step"]).same.all().unstack()
    from_here_on = kept.iloc[:, ::-1].cummin(axis=1).iloc[:, ::-1].astype(bool)
    return from_here_on.apply(lambda row: next((float(k) for k, v in row.items() if v), np.nan), axis=1)


def findings(rows: pd.DataFrame) -> list[Finding]:
    again, chance = rows[rows.kind == "renoise"], rows[rows.kind == "independent"]
    level = by_item(chance, "same")
    by_chance = chance.groupby("problem").same.mean()
    over = {k: paired(at.groupby("problem").same.mean(), by_chance) for k, at in again.groupby("step")}
    steps = sorted(int(k) for k in over)
    early, sure = over[steps[0]], [k for k in steps if over[k].low > 0]
    first, half = (sure or steps)[0], float(again.sigma.max()) / 2
    sigma = float(again[again.step == first].sigma.iloc[0])
    verdict: Verdict = "undecided" if not sure else "reproduced" if sigma > half else "refuted"
    where = f"from step {first} (sigma {sigma:.2f}) on; there the excess is" if sure else "at no tested step; at the first it is"
    found = [
        Finding(
            "The plan is chosen in the early steps (Early plan commitment, 2603.30043; CoS 3.1)",
            verdict,
            f"re-noising gives the same answer more often than two independent noises {where}",
            over[first],
            "agreement of two independent noises",
            level,
            f"the first tested step whose excess has an interval above 0 lies at sigma above {half:.2f}",
        ),
        Finding(
            "At step 0 nothing is chosen yet: re-noising from the first estimate is as good as new noise",
            "reproduced" if early.low <= 0 <= early.high else "refuted",
            "at the first tested step the excess over independent noises is",
            early,
            "agreement of two independent noises",
            level,
            "the interval holds 0",
        ),
    ]
    return found + _screening_findings(rows)


def _screening_findings(rows: pd.DataFrame) -> list[Finding]:
    looks = rows[rows.kind == "look"]
    if looks.empty or looks.solved.astype(bool).nunique() < 2:
        return []
    steps = int(rows[rows.kind == "look"].step.max()) + 1
    table = screening_table(looks, steps)
    middle = min(table.step.unique(), key=lambda k: abs(k - steps // 2))
    at = table[table.step == middle]
    gain = paired(at.set_index("problem")["screened"], at.set_index("problem")["single"])
    even = paired(at.set_index("problem")["screened"], at.set_index("problem")["best of equal compute"])
    return [
        Finding(
            "Seeds can be screened early (ChEaP, 2603.30043)", decide(gain.low, gain.high),
            f"finishing only the seed that looks best at step {int(middle)} instead of one seed gains", gain,
            "against finishing as many seeds as the same compute allows and picking with the verifier", even,
            "the interval of the gain lies above 0",
        )
    ]  # fmt: skip


def auc_by_step(looks: pd.DataFrame) -> pd.DataFrame:
    """How well the look at a step predicts the final verdict: area under the curve, interval over problems."""
    out = []
    for step, at in looks.groupby("step"):
        groups = [g for _, g in at.groupby("problem")]
        number = bootstrap(groups, lambda chosen: auc(_column(chosen, "score"), _column(chosen, "solved").astype(bool)))
        out.append({"step": step, "mean": number.value, "low": number.low, "high": number.high, "n": number.n})
    return pd.DataFrame(out)


def _column(frames: Sequence[pd.DataFrame], name: str) -> np.ndarray:
    return np.concatenate([frame[name].to_numpy() for frame in frames])


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows = result.rows
    sigmas = result.sigmas
    judged = rows.task.ne("prompts").any()
    notes = [left.reason for left in result.units_of(LeftOut).values()]
    if not judged:
        notes.append("These problems have no verifier: only the distance of the re-noised results is shown.")
    sections = [_renoise_section(rows, sigmas, judged)]
    if judged:
        sections += [*_look_sections(rows, sigmas), *_transplant_sections(rows, sigmas)]
    question = (
        "At which step is the plan chosen? The clean estimate of step k gets fresh noise at the same sigma and the run is "
        "finished: what comes out the same was fixed at k."
    )
    source = "CoS section 3.1; Early plan commitment (2603.30043)"
    return pages.build(result, "Commitment", question, source, findings(rows) if judged else [], sections, notes)


def _axis(sigmas: list[float]) -> dict:
    return {"along": "step", "xlabel": "step, sigma", "ticks": step_ticks(sigmas, 2)}


def _renoise_section(rows: pd.DataFrame, sigmas: list[float], judged: bool) -> pages.Section:
    again, chance = rows[rows.kind == "renoise"], rows[rows.kind == "independent"]
    made, table = [], None
    value, label = ("same", "same answer") if judged else ("distance", "distance to the first result")
    for task, part in again.groupby("task", sort=False):
        level = by_item(chance[chance.task == task], value)
        flat = pd.DataFrame({"step": [0, len(sigmas) - 1], "mean": level.value, "low": level.low, "high": level.high})
        curves = [Curve("re-noised", curve(part, value)), Curve("two independent noises", flat, "--")]
        made.append(Panel(str(task), curves, ylabel=label, **_axis(sigmas)))
    if judged:
        table = _commit_table(again)
    caption = (
        f"{DRAWS} fresh noises a step and problem. Bands: 95 % bootstrap over problems. Committed: every re-noised run from "
        "there on agrees."
    )
    return pages.Section("Re-noising", panels(made), caption, table)


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
    names = ("single", "screened", "best of equal compute", "best of all")
    curves = [Curve(name, curve(table, name)) for name in names]
    panel = Panel("accuracy of screening", curves, ylabel="solved", **_axis(sigmas))
    area = Panel("", [Curve("", auc_by_step(looks))], ylabel="area under the curve", **_axis(sigmas))
    shown = [area] if looks.solved.astype(bool).nunique() > 1 else []
    caption = (
        "Left: how well a look at the clean estimate predicts the final verdict (0.5: not at all), over all problems and noises. "
        "Right: all seeds are run to step k, the one that looks best is finished; against one seed, against finishing as many "
        "seeds as the same number of steps allows (a perfect verifier picks), and against finishing all."
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
