"""The page of Chain-of-Steps: accuracy along steps, candidates, steps against frames, the sweep over numbers of steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cos_interp.analyses.chain_of_steps import StepsFacts, files_report
from cos_interp.analyses.chain_of_steps.findings import findings
from cos_interp.analyses.chain_of_steps.forming import forming
from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.facts import RunFacts
from cos_interp.analyses.driver.kept import linked
from cos_interp.analyses.driver.statistics import by_item, curve, entropy, items_each
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.problems import READING
from cos_interp.analyses.kit.readings import answer_changes, commit_step
from cos_interp.analyses.kit.verdicts import outcomes
from cos_interp.reports.figures import Curve, Panel, matrix_maps, panels, step_ticks

FRAMES_CAPTION = (
    "A frame is right when all its cells read as that frame of a right answer's video. Chain-of-Frames would fill from the left, "
    "Chain-of-Steps from below."
)
CANDIDATES_CAPTION = (
    "Items with several right answers. Shown: the effective number of right answers in the clean estimate, by least squares on "
    "their encoded videos and on that of a video in which nothing happens. Control: the answer that the run ends with, under the "
    "estimate's own unexplained rest, moved. Ideal observer: the exact posterior from x_t. Bands: 95 % over items."
)
SWEEP_CAPTION = (
    "As many steps from the same noise, {n} items. Within one run the steps and the noise levels go together; here the number of "
    "serial evaluations changes alone. No verdict. Bands: 95 % over items."
)
FEWER_CAPTION = (
    "Items of which the first frames are right in the whole video: how many have them right in a whole video from another noise, "
    "and in a video of these frames alone from that noise."
)
ITEMS_CAPTION = "Every run. Of those with a link the frames of all steps were kept."
KINDS = {True: "one right answer", False: "several right answers"}


def commitments(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a run: commit step, number of answer changes, final status."""
    out = []
    for (problem, noise), run in rows.groupby(["problem", "noise"], sort=False):
        readable = _readable(run)
        first = run.iloc[0]
        out.append({
            "problem": problem, "noise": noise, "task": first.task, "unique": first["unique"], "difficulty": first.difficulty,
            "commit": commit_step(readable), "changes": answer_changes(readable), "final": run.status.iloc[-1],
            "error": run.error.iloc[-1] if "error" in run else None,  # not of rows that nobody judged
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


def report(result: AnalysisResult, store: RunStore) -> Report:
    if result.config.from_steps is not None:
        return files_report.report(result, store)
    rows, sweep = (result.rows[result.rows.kind == kind] for kind in ("steps", "sweep"))
    sigmas = [*result.sigmas, 0.0]
    question = (
        "At which denoising step is the answer there? The clean estimate of every step is decoded and read by the verifier: "
        "solved, wrong, or undecided (not readable, for instance an average of two answers)."
    )
    judged = rows[rows.status.notna()]
    found, notes = findings(result, judged, result.sigmas) if len(judged) else [], []
    if judged.empty:
        judge = "The scorer gives no verdict" if result.config.scored else "These problems have no verifier (see --scorer)"
        notes = [f"{judge}: only the distance of the estimates to the final latent and graded readings are shown."]
    reels = [_reel(store, unit, facts) for unit, facts in result.units_of(RunFacts).items() if facts.axes]
    shown = "Decoded clean estimates along the steps, the final video beside them, and what the verifier reads."
    sections = [
        *(_judged_sections(judged, sigmas) if len(judged) else []),
        *_graded(rows, _axis(sigmas)),
        *_sweep(sweep),
        *_fewer(result.rows[result.rows.kind == "fewer"]),
        _distance(rows, sigmas),
        pages.Section("Clean estimates", caption=shown, reels=reels),
        *([pages.Section("The items", caption=ITEMS_CAPTION, table=items(judged, reels))] if len(judged) else []),
    ]
    source = "CoS section 3.1, figures 1 and 2"
    return pages.build(result, "Chain-of-Steps", question, source, found, sections, notes, ("correlation",))


def _axis(sigmas: list[float]) -> dict[str, Any]:
    return {"along": "step", "xlabel": "step, sigma (the last is the final video)", "ticks": step_ticks(sigmas, 2)}


def _curves(groups: Iterable[tuple[Any, pd.DataFrame]], value: str, along: str = "step") -> list[Curve]:
    return [Curve(str(name), curve(part, value, along)) for name, part in groups if len(part)]


def _by_kind(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    unique = rows["unique"].astype(bool)
    return [(name, rows[unique == kind]) for kind, name in KINDS.items()]


def _judged_sections(rows: pd.DataFrame, sigmas: list[float]) -> list[pages.Section]:
    flags = rows.assign(**{s: outcomes(rows, s) for s in ("solved", "wrong", "undecided")})
    axis = _axis(sigmas)
    share = {**axis, "bounds": (-0.03, 1.03)}
    verdicts = [Curve(s, curve(flags, s)) for s in ("solved", "wrong", "undecided")]
    kinds = Panel("solved, by ambiguity", _curves(_by_kind(flags), "solved"), ylabel="solved", **share)
    tasks = Panel("solved, by task", _curves(flags.groupby("task", sort=False), "solved"), ylabel="solved", **share)
    counts = ", ".join(f"{part.problem.nunique()} with {name}" for name, part in _by_kind(rows))
    told = f"Items: {counts}. Bands: 95 % intervals over items."
    return [
        pages.Section("Accuracy by ambiguity", panels([kinds]), told, key=True),  # of the items that the answer is about
        pages.Section("Accuracy along the steps", panels([Panel("verdicts", verdicts, ylabel="share of items", **share)]), told),
        pages.Section("Accuracy by task", panels([tasks]), told),
        *_candidates(rows, axis),
        *_frames(rows),
        *_by_difficulty(flags),
        _commitment(rows, axis),
    ]


def _frames(rows: pd.DataFrame) -> list[pages.Section]:
    """Of tasks of the grid: a scorer from outside judges a video whole."""
    if "frame_1" not in rows:
        return []
    frames = matrix_maps([("share of right frames", steps_against_frames(rows))], "pixel frame", "step", "share", (0, 1))
    return [
        pages.Section(
            "Steps and frames",
            frames,
            FRAMES_CAPTION,
            slope_table(forming(rows)),
            of=[rows[rows.frame_1.notna()].problem.nunique()],
        )
    ]


def _by_difficulty(flags: pd.DataFrame) -> list[pages.Section]:
    if flags.difficulty.isna().all():
        return []
    by_step = flags.groupby(["task", "difficulty", "step"]).solved.mean().unstack()
    maps = [(task, by_step.loc[task]) for task in by_step.index.get_level_values(0).unique()]
    figure = matrix_maps(maps, "step", "difficulty", "solved", (0, 1), columns=2)
    return [pages.Section("By difficulty", figure, "Share solved.", of=items_each(flags, ["task", "difficulty"]))]


def _graded(rows: pd.DataFrame, axis: dict[str, Any]) -> list[pages.Section]:
    """What a scorer from outside reads beside its verdict."""
    names = [column for column in rows if column.startswith(READING)]
    made = [Panel(name.removeprefix(READING), _curves(rows.groupby("task", sort=False), name), ylabel="reading", **axis)
            for name in names]  # fmt: skip
    return [pages.Section("Readings of the scorer", panels(made), "Bands: 95 % over items.")] if made else []


def _candidates(rows: pd.DataFrame, axis: dict[str, Any]) -> list[pages.Section]:
    if "shown" not in rows or rows.shown.isna().all():
        return []
    names = {"shown": "shown", "one": "control", "bayes": "ideal observer"}
    made = []
    for task, part in rows[rows.shown.notna()].groupby("task", sort=False):
        curves = [Curve(name, curve(part, value)) for value, name in names.items()]
        made.append(Panel(f"{task}, {part.problem.nunique()} items", curves, ylabel="right answers", **axis))
    return [pages.Section("Candidates", panels(made), CANDIDATES_CAPTION)]


def _commitment(rows: pd.DataFrame, axis: dict[str, Any]) -> pages.Section:
    """The entropy needs several noises of an item; the table does not."""
    caption = "Commit step: first step from which the read answer no longer changes. Intervals: 95 % intervals over items."
    figure = None
    if rows.noise.nunique() > 1:
        bits = _curves(seed_entropy(rows).groupby("task", sort=False), "entropy")
        figure = panels([Panel("entropy of the answer over noises", bits, ylabel="bits", **axis)])
    return pages.Section("Commitment", figure, caption, commit_table(commitments(rows)))


def by_task_and_kind(rows: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """What a table says of each task and kind of item, and its rows."""
    for (task, unique), part in rows.groupby(["task", "unique"], sort=False):
        yield {"task": task, "right answers": "one" if unique else "several"}, part


def slope_table(found: pd.DataFrame) -> pd.DataFrame:
    """Slopes of :func:`forming` by task and kind of item, noises averaged."""
    out = []
    for about, part in by_task_and_kind(found):
        slopes = part.groupby("problem").slope.mean()
        row = {**about, "items that form": len(slopes)}
        out.append({**row, "steps of 20 a latent frame": str(Mean(slopes).number())})
    return pd.DataFrame(out, columns=["task", "right answers", "items that form", "steps of 20 a latent frame"])


def _sweep(rows: pd.DataFrame) -> list[pages.Section]:
    if rows.empty:
        return []
    right = rows.assign(solved=outcomes(rows), num_steps=rows.num_steps.astype(int))
    counts = sorted(right.num_steps.unique())
    places = right.assign(place=right.num_steps.map(counts.index))
    axis: dict[str, Any] = {"along": "place", "xlabel": "number of steps", "ylabel": "solved", "bounds": (-0.03, 1.03)}
    axis["ticks"] = {place: str(count) for place, count in enumerate(counts)}
    made = [
        Panel("by ambiguity", _curves(_by_kind(places), "solved", "place"), **axis),
        Panel("by task", _curves(places.groupby("task", sort=False), "solved", "place"), **axis),
    ]
    caption = SWEEP_CAPTION.format(n=right.problem.nunique())
    return [pages.Section("As many steps", panels(made), caption, sweep_table(right))]


def _fewer(rows: pd.DataFrame) -> list[pages.Section]:
    if rows.empty:
        return []
    out = []
    for about, part in by_task_and_kind(rows):
        right = part[part.whole.astype(bool)]
        row = {**about, "items": len(part)}
        row |= {"first frames right": len(right), "from another noise": int(right.other.sum())}
        out.append(row | {f"{int(part.frames.iloc[0])} frames alone": int(right.fewer.sum())})
    return [pages.Section("Fewer frames", None, FEWER_CAPTION, pd.DataFrame(out))]


def sweep_table(right: pd.DataFrame) -> pd.DataFrame:
    """Solved of how many items by number of steps, task and kind of item."""
    out = []
    for about, part in by_task_and_kind(right):
        row = {**about, "items": part.problem.nunique()}
        out.append(row | {f"{count} steps": int(at.solved.sum()) for count, at in part.groupby("num_steps")})
    return pd.DataFrame(out)


def commit_table(found: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for about, part in by_task_and_kind(found):
        commit = by_item(part.assign(commit=part.commit.astype(float)), "commit")
        row = {**about, "n": part.problem.nunique()}
        row |= {"commit step": str(commit), "answer changes": str(by_item(part, "changes"))}
        rows.append({**row, "undecided at the end": int((part.final == "undecided").sum())})
    return pd.DataFrame(rows)


def _distance(rows: pd.DataFrame, sigmas: list[float]) -> pages.Section:
    curves = [Curve(str(t), curve(p, "distance")) for t, p in rows.groupby("task", sort=False)]
    panel = Panel("", curves, "step", "step, sigma", "|x0hat - final| / |final|", step_ticks(sigmas, 2))
    return pages.Section("Distance of the estimate to the final latent", panels([panel]))


def _reel(store: RunStore, unit: str, facts: RunFacts) -> pages.Reel:
    """The decoded estimates of one run, with the noise level, what the verifier reads at each step, and each right answer's share
    where there are several."""
    tensors, read = store.tensors(unit), pd.DataFrame(store.finished(unit)[0])
    clips, weights = tensors["frames"].numpy(), tensors.get("weights")
    answers = facts.answers if isinstance(facts, StepsFacts) else ()
    last, rows = len(clips) - 1, []
    for step, sigma in enumerate([*facts.sigmas, 0.0]):
        row = read[read.step == step].iloc[0]
        told = {"sigma": sigma, "reads": row.status, "answers shown": row.get("shown")}
        bars = {} if weights is None else dict(zip(answers, map(float, weights[step]), strict=True))
        rows.append(pages.Shown("final video" if step == last else f"step {step}", told, {"step": step}, bars))
    commit = commit_step(_readable(read)) if read.status.notna().all() else None
    return pages.Reel(unit, f"“{facts.prompt}”", clips, rows, along="step", mark=commit)


def _readable(run: pd.DataFrame) -> list[str | None]:
    return [a if s != "undecided" else None for a, s in zip(run.answer, run.status, strict=True)]


def items(rows: pd.DataFrame, reels: Sequence[pages.Reel]) -> pd.DataFrame:
    """One row a run; those whose frames were kept lead to them."""
    found = commitments(rows)
    names = [f"{problem}-noise-{int(noise)}" for problem, noise in zip(found.problem, found.noise, strict=True)]
    return pd.DataFrame({
        "run": linked(names, reels), "task": found.task,
        "right answers": np.where(found["unique"].astype(bool), "one", "several"), "difficulty": found.difficulty,
        "at the end": found.final, "error": found.error.replace("", None), "commit step": found.commit,
        "answer changes": found.changes,
    })  # fmt: skip
