"""The page of the recovery experiment: how often, and by which step, the right answer is back after an injection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Share
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.kept import Kept, kept_clips, reads
from cos_interp.analyses.driver.rules import rules
from cos_interp.analyses.driver.statistics import by_item, curve, mean_number
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.recovery import RecoveryFacts
from cos_interp.reports.drawing import REELS, VALUE
from cos_interp.reports.figures import Curve, Panel, matrix_maps, panels

ABOUT = ["problem", "task", "difficulty"]
COLUMNS = [*ABOUT, "donor", "dose", "injected", "eligible", "taken", "recovered", "foreign", "back", "reads"]
NEAR = 0.5  # without a verifier: an effect above this is nearer to the undisturbed run than to the donor's
DONORS = {"other": "another item", "prompt": "same scene, other prompt", "noise": "noise"}
QUESTION = (
    "The state of a run with another answer is put in at step k, and the run goes on with its own prompt and picture. How "
    "often is the right answer back in the final video, and from which step on is it read in the clean estimate to stay?"
)
INJECTIONS = "Every injected run. Of the items with a link the final videos were kept."
VIDEOS = (
    "Final videos of an item by what was injected, beside the undisturbed one and the donor's own; and, along the steps, what "
    "becomes of the first injection whose answer is read where it was put in."
)
METHOD = (
    "Injected: x_t at the same sigma of another item of the task, of the same scene under another prompt (the cleanest wrong "
    "answer), or noise (sigma x noise: no content). Donors run from the same noise as the receiver, so a dose below 1 mixes "
    "content and not noise, and an injection at step 0, where x_t is all noise, changes nothing. Injected is into items that are "
    "solved undisturbed, from donors that solve their own problem. The verdict counts only runs whose own clean estimate showed "
    "the donor's answer at the step of the injection: before that nothing wrong was there that could be corrected. The last step "
    "does not count: its clean estimate is the final video, so that nothing follows that could correct. Noise put in at the same "
    "steps of the same items is the control: where after it, too, the right answer stays away, it says nothing of wrong answers."
)


def stays_from(flags: Sequence[bool]) -> int | None:
    """Index from which all flags are true to the end; None when the last one is not.

    >>> stays_from([True, False, True, True])
    2
    """
    at = len(flags)
    while at and flags[at - 1]:
        at -= 1
    return at if at < len(flags) else None


RUN = ["problem", "kind", "donor", "dose", "injected"]  # what rows are of one run


def with_right(rows: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """Rows with ``right`` and ``foreign`` (the donor's answer), and whether a verifier said so.

    Without a verifier: nearer to the undisturbed final latent than to the donor's; undefined for noise, which has none. Where it
    says nothing of some videos (a scorer failed), their runs do not count.
    """
    if rows.whose.notna().any():
        told = rows.whose.notna().groupby([rows[name] for name in RUN], dropna=False).transform("all")
        own = rows.assign(right=rows.whose == "target", foreign=rows.whose == "donor", eligible=_eligible(rows) & told)
        return own, True
    kept = rows[rows.effect.notna()]
    near = kept.effect.astype(float) > NEAR
    return kept.assign(right=near, foreign=~near, eligible=True), False


def _eligible(rows: pd.DataFrame) -> pd.Series:
    """Solved undisturbed, and the donor's own video is right for the donor (noise has no answer of its own)."""
    last = rows.step == rows.step.max()
    solved = rows[(rows.kind == "undisturbed") & (rows.whose == "target") & last].problem
    sound = rows[(rows.kind == "never corrected") & (rows.whose == "donor")]
    pairs = {(p, d) for p, d in zip(sound.problem, sound.donor, strict=True)} | {(p, "noise") for p in solved}
    there = [(p, d) in pairs or kind == "undisturbed" for p, d, kind in zip(rows.problem, rows.donor, rows.kind, strict=True)]
    return rows.problem.isin(solved) & pd.Series(there, rows.index)


def recoveries(rows: pd.DataFrame) -> pd.DataFrame:
    """One row an injected run: was the donor's answer read where it was put in (``taken``, the manipulation check), is the right
    one back at the end, and the step from which it stays (NaN: never, or not followed)."""
    out, steps = [], rows.step.max()
    part = rows[rows.kind == "injected"]
    for (_, donor, dose, step), run in part.groupby(["problem", "donor", "dose", "injected"], sort=False):
        run = run.sort_values("step")
        at = stays_from(list(run.right))
        followed = len(run) == steps - step + 1
        back = float(run.step.iloc[at]) if at is not None and followed else float("nan")
        out.append({
            **run.iloc[0][ABOUT], "donor": donor, "dose": dose, "injected": int(step),
            "eligible": bool(run.eligible.iloc[0]), "taken": bool(run.foreign.iloc[0]), "recovered": float(at is not None),
            "foreign": float(run.foreign.iloc[-1]), "back": back,
            "reads": said[1] if (said := reads(run.iloc[-1].to_dict())) else None,
        })  # fmt: skip
    return pd.DataFrame(out, columns=COLUMNS).astype({"eligible": bool, "taken": bool})


def correctable(found: pd.DataFrame, steps: int) -> pd.DataFrame:
    """The injections that count, of a run of ``steps``: not those at the last step, whose clean estimate is the final video."""
    return found[found.eligible & (found.injected < steps - 1)]


def first_taken(found: pd.DataFrame) -> pd.DataFrame:
    """Of every item the injection at the first step at which the donor's answer was read; items without one are left out."""
    taken = found[found.taken].sort_values("injected")
    return taken.groupby("problem", sort=False).head(1)


def after_noise(first: pd.DataFrame, found: pd.DataFrame) -> pd.Series:
    """By item whether the right answer is back after noise, which shows no answer, at the very step of the item's injection."""
    noise = found[found.donor == "noise"].set_index(["problem", "injected"]).recovered
    return noise.reindex(pd.MultiIndex.from_frame(first[["problem", "injected"]])).droplevel("injected")


def unfit(back: Share, noised: Share, smallest: float) -> str | None:
    """Why that few come ``back`` does not refute: after noise at the same steps no more do, so that no step was left which could
    have corrected anything. None where more do, and where so many are back that there were such steps."""
    if back.n == 0 or back.interval()[0] > smallest or noised.value >= smallest:
        return None
    if noised.n == 0:
        return "whether anything can be got back at these steps is not known without noise in the same places, and a verifier"
    return (
        f"after noise at the same steps of the same items the right answer is back in {noised.number()}: nothing can be corrected"
    )


def last_recovered(found: pd.DataFrame) -> int | None:
    """The last injection step after which more than half of the runs that had taken the donor's answer are right again."""
    shares = found[found.taken].groupby("injected").recovered.mean()
    over = [int(step) for step, share in shares.items() if share > 0.5]
    return max(over, default=None)


def findings(result: AnalysisResult, rows: pd.DataFrame, sigmas: Sequence[float], dose: float) -> list[Finding]:
    """The claim for each donor with an answer of its own; ``sigmas`` ends with the final 0."""
    found = recoveries(rows)
    found = found[found.dose == dose]
    asked = [donor for donor in ("prompt", "other") if (rows.donor == donor).any()]
    return [_finding(result, donor, found, sigmas) for donor in asked]


def _finding(result: AnalysisResult, donor: str, every: pd.DataFrame, sigmas: Sequence[float]) -> Finding:
    found = correctable(every[every.donor == donor], len(sigmas) - 1)
    first, last = first_taken(found), last_recovered(found)
    key, back, noised = f"recovery.{donor}", Share(first.set_index("problem").recovered), Share(after_noise(first, every))
    by_step = found.groupby("injected").taken
    read_at = ", ".join(f"{int(taken.sum())} of {len(taken)} at step {step}" for step, taken in by_step)
    until = "after none" if last is None else f"until step {last} (sigma {sigmas[last]:.2f})"
    return result.judge(
        key, back,
        f"{DONORS[donor]}: its answer is read where it was put in for {read_at or 'none'}; of the items in which it was, each at "
        f"the first such step, more than half are right again {until}; the right answer is in the final video for",
        noised.number(), unfit(back, noised, rules()[key].smallest),
        short=f"of the items in which the injected answer ({DONORS[donor]}) was read where it was put in, the right answer is in "
        "the final video for",
    )  # fmt: skip


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows, judged = with_right(result.rows)
    config, facts = result.config, result.first(RecoveryFacts)
    sigmas = [*facts.sigmas, 0.0]
    found = recoveries(rows)
    title, source = "Corruption and recovery", "CoS section 4 (self-correction)"
    if found.empty and not judged:
        page = "Nothing could be injected: give at least two problems, or --donors noise for tasks."
        return pages.build(result, title, QUESTION, source, [], [], [page])
    if not found.eligible.any():
        page = "No item is solved undisturbed with a donor that solves its own problem: there is nothing to lose or to get back."
        concluded = findings(result, rows, sigmas, config.doses[0])
        return pages.build(result, title, QUESTION, source, concluded, [], [METHOD, page])
    reels = _reels(result, store)
    sections = [
        _shares(rows, found[found.eligible], config.doses, sigmas, judged),
        *_maps(rows[rows.eligible], config.doses[0], sigmas, judged, reels),
        pages.Section(
            "When it is back",
            caption="Step: the first from which the right answer is read to the end, over the runs that recover, of those whose "
            "injected answer was read where it was put in. First dose.",
            table=back_table(found[found.eligible & (found.dose == config.doses[0])], sigmas),
        ),
        pages.Section("The injections", caption=INJECTIONS, table=injections(found, reels)),
        pages.Section("Videos", caption=VIDEOS, reels=reels),
    ]
    concluded = findings(result, rows, sigmas, config.doses[0])
    return pages.build(result, title, QUESTION, source, concluded, sections, notes(judged, facts), ("cause",))


def notes(judged: bool, facts: RecoveryFacts) -> list[str]:
    out = [METHOD]
    if not judged:
        out.append(
            "These problems have no verifier: 'right' means nearer to the undisturbed final latent than to the donor's, along "
            "their difference; noise, which has no answer, is left out of the shares."
        )
    if "FlowMatchEuler" not in facts.scheduler:
        out.append(f"{facts.scheduler} keeps earlier outputs of the undisturbed run, which pull the state back.")
    return out


def _shares(rows: pd.DataFrame, found: pd.DataFrame, doses: list[float], sigmas: list[float], judged: bool) -> pages.Section:
    steps = sorted(found.injected.unique())
    ticks = {int(k): f"{k}\n{sigmas[k]:.2f}" for k in steps}
    never = rows[(rows.kind == "never corrected") & rows.eligible]
    made = []
    right = "right answer at the end" if judged else "nearer to the undisturbed run"
    foreign = "injected answer at the end" if judged else "nearer to the donor"
    axis: dict[str, Any] = {
        "along": "injected",
        "xlabel": "injection step, sigma",
        "ylabel": "share",
        "ticks": ticks,
        "bounds": (-0.03, 1.03),
    }
    for dose in doses:
        part = found[found.dose == dose]
        for value, title in (("recovered", right), ("foreign", foreign)):
            groups = part[part.donor != "noise"] if value == "foreign" else part
            curves = [Curve(DONORS[d], curve(p, value, "injected")) for d, p in groups.groupby("donor", sort=False)]
            if value == "recovered" and len(never):
                level = by_item(never.assign(right=never.right.astype(float)), "right").value
                ends = pd.DataFrame({"injected": [steps[0], steps[-1]], "mean": [level] * 2})
                curves.append(Curve("never corrected", ends, "--"))
            made.append(Panel(f"{title}, dose {dose:g}", curves, **axis))
    drawn = [panel for panel in made if panel.curves]
    return pages.Section("What is left at the end", panels(drawn), "Bands: 95 % over items. Sigma below the step.")


def followed(rows: pd.DataFrame, judged: bool) -> pd.DataFrame:
    """The injected runs of which every estimate was read: those that showed the donor's answer where it was put in."""
    part = rows[rows.kind == "injected"]
    first = part[(part.step == part.injected) & (part.foreign | (not judged))]
    run = ["problem", "donor", "dose", "injected"]
    return part[pd.MultiIndex.from_frame(part[run]).isin(pd.MultiIndex.from_frame(first[run]))]


def _maps(rows: pd.DataFrame, dose: float, sigmas: list[float], judged: bool, reels: Sequence[pages.Reel]) -> list[pages.Section]:
    part = followed(rows[rows.dose == dose], judged)
    never = rows[rows.kind == "never corrected"]
    out = []
    last = len(sigmas) - 1
    named = {"right": "the right answer" if judged else "nearer to the undisturbed run", "foreign": "the injected answer"}
    for value, name in named.items():
        maps, told = [], []
        for donor, runs in part.groupby("donor", sort=False):
            if value == "foreign" and donor == "noise":
                continue
            table = runs.assign(value=runs[value].astype(float)).pivot_table("value", "injected", "step")
            table.index = [f"{int(k)}  {sigmas[int(k)]:.2f}" for k in table.index]
            table.columns = ["end" if k == last else str(int(k)) for k in table]
            maps.append((DONORS[donor], table))
            told.append(_cells(runs, value, donor, never[never.donor == donor], reels))
        if maps:
            figure = matrix_maps(maps, "later step", "injection step, sigma", "share", (0, 1), panel="injected")
            over = "Over the runs that showed the injected answer where it was put in; n in each cell. " if judged else ""
            caption = f"{over}Dose {dose:g}. 'end': the final video. Control: the donor's own video, which nothing corrected."
            out.append(
                pages.Section(f"Read in the clean estimate: {name}", figure.explored(pd.concat(told, ignore_index=True)), caption)
            )
    return out


def _cells(runs: pd.DataFrame, value: str, donor: str, never: pd.DataFrame, reels: Sequence[pages.Reel]) -> pd.DataFrame:
    """A row an injection step and later step: the share with its interval, n, the control, and the reels of that injection."""
    control = None if never.empty else float(never[value].astype(float).mean())
    out = []
    for (injected, step), at in runs.groupby(["injected", "step"]):
        share, where = Share(at[value]).number(), {"injected": DONORS[donor], "injection step": int(injected)}
        seen = [reel.name for reel in reels if any(row.at == where for row in reel.rows)]
        out.append({
            **where, "later step": int(step), VALUE: share.value, **share.ends,
            "never corrected": control, "sigma": float(at.sigma.iloc[0]), REELS: seen,
        })  # fmt: skip
    return pd.DataFrame(out)


def injections(found: pd.DataFrame, reels: Sequence[pages.Reel]) -> pd.DataFrame:
    """Every injected run, a row each; those of an item whose videos were kept lead to them."""
    kept = {reel.name for reel in reels}
    named = [(problem, f"{problem}, {DONORS[donor]}") for problem, donor in zip(found.problem, found.donor, strict=True)]
    table = pd.DataFrame({
        "item": [pages.Link(problem, name) if name in kept else problem for problem, name in named],
        "task": found.task, "difficulty": found.difficulty,
        "injected": found.donor.map(DONORS), "dose": found.dose, "step": found.injected,
        "eligible": np.where(found.eligible, "yes", "no"), "its answer was read": np.where(found.taken, "yes", "no"),
        "answer at the end": found.reads, "right at the end": np.where(found.recovered > 0, "yes", "no"),
        "right from step": found.back,
    })  # fmt: skip
    unknown = [name for name in ("difficulty", "answer at the end") if table[name].isna().all()]  # of the user's own
    return table.drop(columns=unknown)


def back_table(found: pd.DataFrame, sigmas: list[float]) -> pd.DataFrame:
    out = []
    for (donor, step), part in found.groupby(["donor", "injected"], sort=True):
        back = mean_number(part.back.to_numpy(float))
        out.append({
            "injected": DONORS[donor],  "step": f"{step} (sigma {sigmas[step]:.2f})",
            "back at the end": str(mean_number(part.recovered)), "back from step": str(back) if back.n else "–",
            "injected answer at the end": "–" if donor == "noise" else str(mean_number(part.foreign)),
        })  # fmt: skip
    return pd.DataFrame(out)


def _reels(result: AnalysisResult, store: RunStore) -> list[pages.Reel]:
    """Of every thing that was injected into an item the final videos beside each other, and of one injection the steps."""
    out = []
    for one in kept_clips(result, store):
        last = max((row["step"] for row in one.rows if row), default=0)
        final = [k for k, row in enumerate(one.rows) if not row or row["step"] == last]
        for donor in dict.fromkeys(row["donor"] for row in one.rows if row.get("donor")):
            only = [k for k in final if one.rows[k]["donor"] in (None, donor)]
            named = replace(one, names=[_named(name, row) for name, row in zip(one.names, one.rows, strict=True)])
            out.append((donor, [named.reel(f"{one.unit}, {DONORS[donor]}", at=_place, only=only), *_followed(one, donor, last)]))
    return [reel for _, reels in sorted(out, key=lambda made: made[0] == "noise") for reel in reels]  # which has no answer


def _named(name: str, row: Row) -> str:
    """What a final video is, in words."""
    if row.get("injected") is not None:
        return f"put in at step {row['injected']}"
    return "the donor's own video" if row.get("donor") else name


def _followed(one: Kept, donor: str, last: int) -> list[pages.Reel]:
    """The clean estimates after the first injection of a donor whose answer was read where it was put in, along the steps."""
    there = [row["injected"] for row in one.rows if row["donor"] == donor and row["step"] < last and row["kind"] == "injected"]
    if len(there) < 2:
        return []
    only = [k for k, row in enumerate(one.rows) if row["donor"] == donor and row["injected"] == there[0]]
    only.sort(key=lambda k: one.rows[k]["step"])
    named = replace(one, names=["final video" if row and row["step"] == last else f"step {row.get('step')}" for row in one.rows])
    name = f"{one.unit}, {DONORS[donor]} at step {there[0]}, along the steps"
    return [named.reel(name, {"sigma": "sigma", "as undisturbed": "effect"}, _place, only, along="later step")]


def _place(name: str, row: Row) -> dict[str, str | int]:
    """The place of an injected video in the maps; that of an estimate along the steps has the later step, too."""
    if row.get("injected") is None:
        return {}
    at: dict[str, str | int] = {"injected": DONORS[row["donor"]], "injection step": int(row["injected"])}
    return at | ({"later step": int(row["step"])} if name.startswith(("step", "final")) else {})
