"""What Chain-of-Steps found: accuracy along steps, steps against frames, exploration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.facts import RunFacts
from cos_interp.analyses.driver.findings import Finding, Number, decide
from cos_interp.analyses.driver.statistics import by_item, curve, entropy, mean_number, paired
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.readings import answer_changes, commit_step
from cos_interp.reports.figures import Curve, Panel, matrix_maps, panels, step_ticks

FRAMES_CAPTION = (
    "A frame is right when all its cells read as that frame of a right answer's video. Chain-of-Frames would fill from the left, "
    "Chain-of-Steps from below."
)


RISE = 0.2  # the headline claim asks for a rise of the solved share of more than this


def commitments(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a run: commit step, number of answer changes, final status."""
    out = []
    for (problem, noise), run in rows.groupby(["problem", "noise"], sort=False):
        readable = [a if s != "undecided" else None for a, s in zip(run.answer, run.status, strict=True)]
        first = run.iloc[0]
        out.append({
            "problem": problem, "noise": noise, "task": first.task, "unique": first["unique"], "difficulty": first.difficulty,
            "commit": commit_step(readable), "changes": answer_changes(readable), "final": run.status.iloc[-1],
        })  # fmt: skip
    return pd.DataFrame(out)


def seed_entropy(rows: pd.DataFrame) -> pd.DataFrame:
    """Entropy in bits of the answers over noises, by problem and step; unreadable counts as an answer of its own."""
    named = rows.assign(shown=rows.answer.where(rows.status != "undecided", "undecided"))
    found = named.groupby(["problem", "task", "unique", "step"]).shown.apply(lambda a: entropy(list(a)))
    return found.rename("entropy").reset_index()


def steps_against_frames(rows: pd.DataFrame) -> pd.DataFrame:
    """Share of right frames, step x pixel frame (the first pixel frame is given and left out)."""
    columns = [c for c in rows if c.startswith("frame_") and c != "frame_0"]
    table = rows.groupby("step")[columns].mean()
    return table.rename(columns=lambda c: int(c.split("_")[1]))


def findings(rows: pd.DataFrame) -> list[Finding]:
    last = int(rows.step.max())
    solved = rows.assign(solved=(rows.status == "solved").astype(float))
    by = {k: part.groupby("problem").solved.mean() for k, part in solved.groupby("step")}
    rise = paired(by[last], by[0])
    early, late = mean_number(by[0]), mean_number(by[last])
    unique = {k: part.groupby("problem").solved.mean() for k, part in solved[solved.unique.astype(bool)].groupby("step")}
    headline = Finding(
        "The answer forms along the denoising steps: the clean estimate's accuracy rises from about 0.3 to over 0.8 (3.1)",
        decide(rise.low, rise.high, RISE),
        f"solved {early} at step 0 and {late} at the end, a rise of",
        rise,
        "items with one right answer",
        paired(unique[last], unique[0]) if unique else Number(float("nan")),
        f"the interval of the rise lies above {RISE}",
    )
    ambiguous = rows[~rows.unique.astype(bool)]
    return [headline, _against_frames(rows, last), *([_exploration(rows, ambiguous, last)] if len(ambiguous) else [])]


def _against_frames(rows: pd.DataFrame, last: int) -> Finding:
    """Rise over the steps at fixed frames, against the rise over the frames at fixed steps, per problem."""
    columns = [c for c in rows if c.startswith("frame_") and c != "frame_0"]
    half = len(columns) // 2
    early, late = rows[columns[:half]].mean(axis=1), rows[columns[half:]].mean(axis=1)
    shares = rows.assign(right=rows[columns].mean(axis=1), gain=late - early)
    ends = {k: shares[shares.step == k].groupby("problem").right.mean() for k in (0, last)}
    along_frames = by_item(shares, "gain")
    steps = paired(ends[last], ends[0])
    difference = paired(ends[last] - ends[0], shares.groupby("problem").gain.mean())
    return Finding(
        "Reasoning runs along the steps, not along the frames (1, 3.1)", decide(difference.low, difference.high),
        f"right frames rise by {steps} over the steps; that exceeds the rise from the first to the second half of the frames by",
        difference, "rise along the frames, all steps", along_frames, "the interval of the difference lies above 0",
    )  # fmt: skip


def _exploration(rows: pd.DataFrame, ambiguous: pd.DataFrame, last: int) -> Finding:
    at = {k: part.groupby("problem").candidates.mean() for k, part in ambiguous.groupby("step")}
    most = max(range(last), key=lambda k: at[k].mean())
    fewer = paired(at[most], at[last])
    unique = rows[rows.unique.astype(bool)]
    held = {k: part.groupby("problem").candidates.mean() for k, part in unique.groupby("step")}
    control = paired(held[most], held[last]) if held else Number(float("nan"))
    return Finding(
        "Several candidates are shown first and pruned later (3.1.1)", decide(fewer.low, fewer.high),
        f"items with several right answers show most candidates at step {most}, more than at the end by", fewer,
        "items with one right answer, same steps", control, "the interval lies above 0",
    )  # fmt: skip


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows = result.rows
    sigmas = [*result.sigmas, 0.0]
    question = (
        "At which denoising step is the answer there? The clean estimate of every step is decoded and read by the verifier: "
        "solved, wrong, or undecided (not readable, for instance an average of two answers)."
    )
    judged = rows[rows.status.notna()]
    found, notes = findings(judged) if len(judged) else [], []
    if judged.empty:
        notes = ["These problems have no verifier: only the distance of the estimates to the final latent is shown."]
    strips = [_strip(store, unit, facts) for unit, facts in result.units_of(RunFacts).items() if facts.axes]
    shown = "Rows: spread steps, the final video last. Columns: pixel frames."
    sections = [
        *(_judged_sections(judged, sigmas) if len(judged) else []),
        _distance(rows, sigmas),
        pages.Section("Clean estimates", caption=shown, clips=strips),
    ]
    return pages.build(result, "Chain-of-Steps", question, "CoS section 3.1, figures 1 and 2", found, sections, notes)


def _judged_sections(rows: pd.DataFrame, sigmas: list[float]) -> list[pages.Section]:
    flags = rows.assign(**{s: (rows.status == s).astype(float) for s in ("solved", "wrong", "undecided")})
    axis: dict[str, Any] = {
        "along": "step",
        "xlabel": "step, sigma (the last is the final video)",
        "ticks": step_ticks(sigmas, 2),
    }
    share = {**axis, "bounds": (-0.03, 1.03)}
    kinds = [("one right answer", flags[flags.unique.astype(bool)]), ("several right answers", flags[~flags.unique.astype(bool)])]

    def curves(groups: Iterable[tuple[str, pd.DataFrame]], value: str) -> list[Curve]:
        return [Curve(str(name), curve(part, value)) for name, part in groups if len(part)]

    verdicts = [Curve(s, curve(flags, s)) for s in ("solved", "wrong", "undecided")]
    along = [
        Panel("verdicts", verdicts, ylabel="share of items", **share),
        Panel("solved, by task", curves(flags.groupby("task", sort=False), "solved"), ylabel="solved", **share),
        Panel("solved, by ambiguity", curves(kinds, "solved"), ylabel="solved", **share),
        Panel("candidates shown", curves(kinds, "candidates"), ylabel="candidates", **axis),
    ]
    bits = curves(seed_entropy(rows).groupby("task", sort=False), "entropy")
    by_step = flags.groupby(["task", "difficulty", "step"]).solved.mean().unstack()
    maps = [(task, by_step.loc[task]) for task in by_step.index.get_level_values(0).unique()]
    frames = matrix_maps([("share of right frames", steps_against_frames(rows))], "pixel frame", "step", "share", (0, 1))
    return [
        pages.Section("Accuracy along the steps", panels(along), "Bands: 95 % bootstrap over items."),
        pages.Section("Steps and frames", frames, FRAMES_CAPTION),
        pages.Section("By difficulty", matrix_maps(maps, "step", "difficulty", "solved", (0, 1), columns=2), "Share solved."),
        pages.Section(
            "Commitment",
            panels([Panel("entropy of the answer over noises", bits, ylabel="bits", **axis)]),
            "Commit step: first step from which the read answer no longer changes.",
            commit_table(commitments(rows)),
        ),
    ]


def commit_table(found: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (task, unique), part in found.groupby(["task", "unique"], sort=False):
        commit = by_item(part.assign(commit=part.commit.astype(float)), "commit")
        row = {"task": task, "right answers": "one" if unique else "several", "n": part.problem.nunique()}
        row |= {"commit step": str(commit), "answer changes": str(by_item(part, "changes"))}
        rows.append({**row, "undecided at the end": int((part.final == "undecided").sum())})
    return pd.DataFrame(rows)


def _distance(rows: pd.DataFrame, sigmas: list[float]) -> pages.Section:
    curves = [Curve(str(t), curve(p, "distance")) for t, p in rows.groupby("task", sort=False)]
    panel = Panel("", curves, "step", "step, sigma", "|x0hat - final| / |final|", step_ticks(sigmas, 2))
    return pages.Section("Distance of the estimate to the final latent", panels([panel]))


def _strip(store: RunStore, unit: str, facts: RunFacts) -> pages.Clip:
    frames = store.tensors(unit)["frames"].numpy()
    steps = sorted({round(k) for k in np.linspace(0, len(frames) - 1, 8)})
    text = f"“{facts.prompt}”, steps {', '.join(map(str, steps))}"
    return pages.Clip(unit, text, pages.strip(frames[steps]))
