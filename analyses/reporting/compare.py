"""The page of several runs of one experiment: what each found, how much they differ, and where along steps and layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from cos_interp.analyses.driver import pictures
from cos_interp.analyses.driver.answer import in_words, of_twins
from cos_interp.analyses.driver.command import flag
from cos_interp.analyses.driver.entry import Entry
from cos_interp.analyses.driver.findings import VERDICT_STYLE
from cos_interp.analyses.driver.identity import ELSEWHERE
from cos_interp.analyses.driver.layout import laid_out
from cos_interp.analyses.driver.loaded import LoadedRun
from cos_interp.analyses.driver.parts import Section
from cos_interp.analyses.driver.workers import default_workers
from cos_interp.analyses.reporting.claims import Claim, claims
from cos_interp.analyses.reporting.differences import Difference
from cos_interp.analyses.reporting.drawn import claim_figures, sections_of
from cos_interp.analyses.reporting.measures import LAYER, Laid, laid
from cos_interp.analyses.reporting.sides import Side, sides
from cos_interp.reports.html import render

HOW = (
    "Differences are taken from the first run. Where two runs have the same items, each item is held against itself (paired): "
    "Newcombe's interval for outcomes, bootstrap-t from twelve items on for other numbers, Student's t below that. Where they do "
    "not, or it is not known which pairs a run found, the two are two samples (unpaired), and the interval of the difference is "
    "put together from their own (Zou and Donner 2008); n is then that of the smaller one. Intervals are 95 % and not corrected "
    "for their number."
)
ALIGNED = (
    "Steps are compared at their noise level sigma and layers at their relative depth (layer over number of layers), at the "
    "points that the first run has. Between two points of its own another run is taken as linear; beyond them nothing is said."
)


def compared(runs: Sequence[LoadedRun], entry: Entry) -> tuple[str, dict[str, Any]]:
    """The page, and the same as plain data. RunError for runs that cannot be compared."""
    held = sides(runs)
    found = claims(held)
    columns = [laid(measured, held) for measured in entry.compared]
    lacking = [f"{one.measured.title}: not compared ({'; '.join(one.lacking)})." for one in columns if one.lacking]
    sections = [*claim_figures(found, held), *(section for one in columns for section in sections_of(one, held))]
    settings = Section("What differs between the runs", table=differing(held))
    pictures.make(sections, default_workers())
    html = render(
        "compare.html",
        title=f"{entry.name}: {len(held)} runs", question=f"How do {_list([side.name for side in held])} differ? {entry.about}",
        answer=sentence(found, columns, held), agreed=agreement(found), verdicts=VERDICT_STYLE, of_twins=of_twins,
        notes=[HOW, ALIGNED, *lacking],
        claims=[row(claim, held) for claim in found], **laid_out([*sections, settings]),
        runs=[about(side, found, place) for place, side in enumerate(held)],
    )  # fmt: skip
    return html, data(found, held)


def answering(found: Sequence[Claim]) -> Claim | None:
    """The first claim with a verdict that has a number in the first run and in another."""
    claim = next((one for one in found if one.first.primary and any(one.differences)), None)
    return claim if claim is not None and claim.found[0] is not None else None


def sentence(found: Sequence[Claim], columns: Sequence[Laid], held: Sequence[Side]) -> str:
    """What the first claim with a verdict says of the runs, of more than two in numbers of runs; without such a claim, the first
    measured column at its last point."""
    claim = answering(found)
    if claim is None:
        return f"No claim has a number in two of these runs. {last_point(columns, held)}".strip()
    first = f"“{claim.first.claim}”: {held[0].name} {of_run(claim, 0)}"
    if len(held) == 2:
        return f"{first}; {held[1].name} {of_run(claim, 1)}."
    counted = Counter(lies(more) if more is not None else "without a number" for more in claim.differences)
    more, less = counted.pop("more", 0), counted.pop("less", 0)
    rest = ", ".join(f"{count} {words}" for words, count in counted.items())
    return f"{first}. Of the {len(held) - 1} others {more} have more, {less} less{', ' if rest else ''}{rest}."


def of_run(claim: Claim, place: int) -> str:
    """What a claim says of a run: its number, and beside the first run how much more that is."""
    finding, more = claim.found[place], claim.differences[place - 1] if place else None
    if finding is None or (place and more is None):
        return "has no number"
    has = f"has {in_words(finding.number)}"
    if more is None:
        return has
    told, side_of = f"{in_words(more.number)}, {more.how}", lies(more)
    return f"{has}, which is {side_of} by {told}" if side_of in ("more", "less") else f"{has}, {side_of}: {told}"


def lies(more: Difference) -> str:
    """On which side of the first run another lies, in words."""
    if more.side == "the same in all items":
        return "more" if more.number.value > 0 else "less"
    known = {"more": "more", "less": "less", "no interval": "without an interval"}
    return known.get(more.side, "not shown to differ")


def last_point(columns: Sequence[Laid], held: Sequence[Side]) -> str:
    """The first measured column at its last point, of the last step or the deepest layer; "" where there is none."""
    column = next((one for one in columns if one.groups), None)
    if column is None:
        return ""
    group = column.groups[0]
    point = group.points[-1]
    along = column.measured.along
    where = [f"sigma {point.sigma:.2f}"] * (along not in ((), (LAYER,))) + [f"depth {point.depth:.2f}"] * (LAYER in along)
    numbers = [f"{side.name} has {in_words(number)}" for side, number in zip(held, point.numbers, strict=True)]
    apart = [f"{side.name} less {held[0].name}: {more}" for side, more in zip(held[1:], point.differences, strict=True)]
    of = f" ({group.name})" if group.name else ""
    at = f", at {' and '.join(where)}" if where else ""
    return f"{column.measured.title}{of}{at}: {'; '.join([*numbers, *apart])}."


def agreement(found: Sequence[Claim]) -> str:
    """How many claims have one verdict in all runs."""
    counted = [claim for claim in found if claim.first.primary]
    same = sum(claim.agreed for claim in counted)
    return f"{same} of {len(counted)} claims have the same verdict in all runs." if counted else "These runs have no verdicts."


def row(claim: Claim, held: Sequence[Side]) -> dict[str, Any]:
    """A claim for the template: what each run found."""
    return {
        "claim": claim.first.claim, "rule": claim.first.rule, "primary": claim.first.primary,
        "runs": [
            {"name": side.name, "finding": finding, "more": None if not place else claim.differences[place - 1]}
            for place, (side, finding) in enumerate(zip(held, claim.found, strict=True))
        ],
    }  # fmt: skip


def about(side: Side, found: Sequence[Claim], place: int) -> dict[str, Any]:
    """What a run is, and what the answering claim says of it, in a few words."""
    claim = answering(found)
    model, config = side.run.facts["model"], side.run.config
    return {
        "name": side.name, "model": model["name"], "weights": (model.get("digest") or "not hashed")[:12],
        "steps": config.num_inference_steps, "guidance": config.guidance_scale, "command": side.run.facts["command"],
        "versions": side.run.facts["versions"], "found": of_run(claim, place) if claim is not None else "",
    }  # fmt: skip


def differing(held: Sequence[Side]) -> pd.DataFrame:
    """What is not the same in all runs: model, settings, inputs, versions; a row a thing, a column a run."""
    told = [dict(_told(side)) for side in held]
    names = [name for name in dict.fromkeys(name for one in told for name in one) if len({one.get(name) for one in told}) > 1]
    return pd.DataFrame(
        [{"what": name, **{s.name: one.get(name, "–") for s, one in zip(held, told, strict=True)}} for name in names]
    )


def _told(side: Side) -> Iterator[tuple[str, str]]:
    facts = side.run.facts
    model = facts["model"]
    yield "model", str(model["name"])
    yield "weights", (model.get("digest") or "not hashed")[:12]
    yield "layers", str(side.layers if side.layers is not None else "not said")
    yield "computed in", str(model.get("computed", "not said"))
    for name, value in side.run.config.model_dump(mode="json").items():
        if name not in ELSEWHERE:
            yield flag(name), str(value)
    for option, content in facts.get("inputs", {}).items():
        yield f"content of {option}", ", ".join(str(sha)[:8] for sha in list(content.values())[:3])
    for name, value in facts["versions"].items():
        yield f"version of {name}", str(value)


def data(found: Sequence[Claim], held: Sequence[Side]) -> dict[str, Any]:
    """Claims, numbers and differences as plain data."""
    return {
        "runs": [{"name": side.name, "folder": str(side.run.folder), "model": side.run.facts["model"]["name"]} for side in held],
        "claims": [
            {
                "claim": claim.first.claim, "key": claim.place[0],
                "runs": [
                    {"run": side.name, "verdict": finding and finding.verdict, "number": finding and asdict(finding.number)}
                    for side, finding in zip(held, claim.found, strict=True)
                ],
                "differences": [more and {**asdict(more), "how": more.how, "side": more.side} for more in claim.differences],
            }
            for claim in found
        ],
    }  # fmt: skip


def _list(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
