"""The page of the seed's choice: the psychometric curve, what the noise alone tells, reflections along the steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.facts import LeftOut
from cos_interp.analyses.driver.kept import kept_clips, videos
from cos_interp.analyses.driver.statistics import by_item, curve, flat
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.seed_choice import CLAIM_AT, WAYS, SeedChoiceConfig, SeedChoiceFacts, label
from cos_interp.analyses.seed_choice.findings import findings, moved_to, reflected, thresholds
from cos_interp.reports.figures import Curve, Panel, panels, step_ticks

QUESTION = (
    "Several videos are right. Does the initial noise pick which one comes, and where in it is that written? The noise is moved "
    "along one direction alone, the difference of two answers' latents; everything across it stays."
)
SOURCE = "Early plan commitment (2603.30043); the direction and its boundary are this project's own reading"
VIDEOS = (
    f"The untouched run, and its noise moved to +{CLAIM_AT:g} SD on the other answer's side, with the controls moved as far. "
    "Table: which answer each gives, of every item; those with a link have their videos here."
)
SHARES = (-0.03, 1.03)


def report(result: AnalysisResult[SeedChoiceConfig], store: RunStore) -> Report:
    rows = result.rows
    notes = [left.reason for left in result.units_of(LeftOut).values()]
    if rows.empty:
        section = pages.Section("Moved noises", caption="No problem has several videos that differ: there is nothing to choose.")
        return pages.build(result, "Seed choice", QUESTION, SOURCE, [], [section], notes)
    if rows.task.eq("prompts").all():
        notes.append("These problems have no verifier: a run's answer is the candidate that its final latent is nearest to.")
    sigmas, fit = result.sigmas, rows[rows.eligible.astype(bool)]
    # a model that gives no answer has only weights to show
    shown = fit if len(fit) else rows
    sections = [_psychometric(shown), _noise(shown), _turned(shown, sigmas), _videos(result, store)]
    return pages.build(result, "Seed choice", QUESTION, SOURCE, findings(result, rows, len(sigmas)), sections, notes)


def _psychometric(rows: pd.DataFrame) -> pages.Section:
    along, controls = rows[(rows.kind == "dose") & (rows.way == "toward")], moved_to(rows)
    curves = lambda value: [
        *(Curve(str(task), curve(part, value, "dose", bounds=(0, 1))) for task, part in along.groupby("task", sort=False)),
        *(
            Curve(WAYS[way], curve(controls[controls.way == way], value, "dose", bounds=(0, 1)), "x")
            for way in ("random", "shifted")
        ),
    ]
    axis: dict[str, Any] = {
        "along": "dose",
        "xlabel": "place of the noise between the own and the other answer, SD",
        "bounds": SHARES,
    }
    made = [
        Panel("the run gives the other answer", curves("is_target"), ylabel="share of items", **axis),
        Panel("the other video in the final latent", curves("weight"), ylabel="weight", **axis),
    ]
    caption = (
        "0 is half way between the two answers, where an ideal observer of the noise would change his mind; the run's own noise "
        f"stands at {by_item(rows[rows.kind == 'noise'], 'position')} SD. Crosses: controls, moved as far as to "
        f"+{CLAIM_AT:g} SD. {rows.problem.nunique()} problems that end with an answer, bands: 95 % intervals over them."
    )
    return pages.Section("Moving the noise", panels(made), caption, _doses(rows))


def _doses(rows: pd.DataFrame) -> pd.DataFrame:
    found, turns = rows[rows.kind == "dose"], thresholds(rows)
    out = []
    for (task, dose, way), part in found.groupby(["task", "dose", "way"], sort=False):
        out.append({
            "task": task, "noise at, SD": dose, "direction": WAYS[str(way)], "moved by, SD": float(part.by.mean()),
            "share of its norm": f"{part.share.mean():.1%}", "other answer": str(by_item(part, "is_target")),
            "own answer": str(by_item(part, "is_own")), "weight of the other": str(by_item(part, "weight")),
        })  # fmt: skip
    for task, part in found.groupby("task", sort=False):
        turned = turns.reindex(part.problem.unique()).rename_axis("problem").reset_index(name="turns")
        out.append({"task": task, "direction": f"threshold: {by_item(turned, 'turns')} SD"})
    return pd.DataFrame(out)


def _noise(rows: pd.DataFrame) -> pages.Section:
    found, states = rows[rows.kind == "noise"], rows[(rows.kind == "reflected") & (rows.way == "toward")]
    named = [Curve(str(task), curve(part, "named")) for task, part in states.groupby("task", sort=False)]
    chance = by_item(found, "chance")
    level = flat(chance, "step", 0, states.step.max())
    panel = Panel("an ideal observer of x_t names the run's answer", [*named, Curve("other noises", level, "--")], "step",
                  "step", "share of items", bounds=SHARES)  # fmt: skip
    table = pd.DataFrame([
        {"task": task, "items": len(part), "answers an item": float(part.candidates.mean()),
         "named from the noise": str(by_item(part, "named")), "from other noises": str(by_item(part, "chance"))}
        for task, part in found.groupby("task", sort=False)
    ])  # fmt: skip
    caption = (
        "The likeliest right answer given x_t alone, every one equally likely before: a formula, no model. Bands: over items."
    )
    return pages.Section("What the noise alone tells", panels([panel]), caption, table)


def _turned(rows: pd.DataFrame, sigmas: list[float]) -> pages.Section:
    kept = pd.concat([reflected(rows, int(step)) for step in sorted(rows[rows.kind == "reflected"].step.unique())])
    if kept.empty:
        return pages.Section("Reflected states", caption="No state lies on the side of its own answer.")
    turned = [Curve(WAYS[str(way)], curve(part, "is_target")) for way, part in kept.groupby("way", sort=False)]
    far = kept[kept.way == "toward"].assign(far=-kept.position)
    ticks = {k: label for k, label in step_ticks(sigmas).items() if k in set(kept.step)}
    axis: dict[str, Any] = {"along": "step", "xlabel": "step, sigma", "ticks": ticks}
    made = [
        Panel("the run gives the other answer", turned, ylabel="share of items", bounds=SHARES, **axis),
        Panel(
            "distance of the state from the boundary",
            [Curve("", curve(far, "far"))],
            ylabel="SD of the noise",
            bounds=(0, 10),
            **axis,
        ),
    ]
    caption = (
        "x_t at a step is reflected at the boundary where an ideal observer changes his mind between the two answers, and the "
        "run goes on; the move is twice the distance on the right. Only states on their own answer's side. Bands: over items."
    )
    return pages.Section("Reflected states", panels(made), caption, _reflections(kept))


def _reflections(kept: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame([
        {"step": step, "sigma": float(part.sigma.iloc[0]), "direction": WAYS[str(way)], "moved by, SD": float(part.by.mean()),
         "other answer": str(by_item(part, "is_target")), "own answer": str(by_item(part, "is_own")),
         "weight of the other": str(by_item(part, "weight"))}
        for (step, way), part in kept.groupby(["step", "way"], sort=False)
    ])  # fmt: skip


def _videos(result: AnalysisResult[SeedChoiceConfig], store: RunStore) -> pages.Section:
    """The untouched run beside the moved ones, and which answer they give, of every item."""
    about = result.units_of(SeedChoiceFacts)
    say = {"reads": "status", "weight of the other answer": "weight"}
    reels = [
        replace(one, rows=[{**row, "outcome": _given(row)} for row in one.rows]).reel(say=say, text=_told(about[one.unit]))
        for one in kept_clips(result, store)
    ]
    judged = result.rows.assign(outcome=[_given(row) for row in result.rows.to_dict("records")])
    return pages.Section("Videos", caption=VIDEOS, reels=reels, table=videos(judged, label, reels))


def _told(facts: SeedChoiceFacts) -> str:
    return f"“{facts.prompt}”; own answer: {facts.own}; the other: {facts.target}"


def _given(row: Row) -> str:
    """Which answer a run gives: its own one's, the other, a third or none."""
    if row["kind"] == "noise":
        return "its own" if row["eligible"] else "none"
    return "the other one" if row["is_target"] else "its own" if row["is_own"] else "neither"
