"""The page of a circuit, and ``circuit.json``. Knows rows, not models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cos_interp.analyses.circuit import Circuit, CircuitConfig, Component, PairFacts, SearchFacts
from cos_interp.analyses.circuit.checks import RANDOM, SHOWN, WAYS
from cos_interp.analyses.circuit.findings import findings
from cos_interp.analyses.circuit.flow import flow
from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import EFFECT, Mean
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.facts import LeftOut
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.driver.kept import kept_clips, videos
from cos_interp.analyses.driver.statistics import effect, points
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.split_pairs import none_left
from cos_interp.reports import figures

QUESTION = (
    "Which parts of the model carry the answer from one run to another? Two runs of one noise differ in their prompt. What one "
    "block's attention or MLP writes into some tokens of the one is put into the other, and the run is finished: effect 0, "
    "nothing moved; 1, the final latent is the other run's along their difference. The smallest set that keeps a stated share of "
    "the whole is looked for on a few pairs, and tested on others."
)
SOURCE = "CoS section 5.2; IOI (2211.00593): patching, paths, sufficiency and necessity"
HEADS = (
    "One head at a time, at all tokens in all steps. A head that does all for some pairs and nothing for others carries what "
    "they differ by; a part whose heads each do nothing and that does much as a whole needs several of them at once."
)
CHECKS = (
    "On {n} pairs that the search has not seen; effects with 95 % intervals over pairs. Random sets: equally many "
    "components of the same parts in other blocks, at as many tokens elsewhere, {draws} a pair. What reads: the circuit's "
    "attention to the prompt (where it has none, to the video), at all tokens in all steps. Shown: how much of either answer the "
    "last frame shows, however the rest reads."
)
PATHS = (
    "Mean effect over {n} pairs of the search of what a sender (row) hands to a receiver (column). Within a step: directly "
    "through the residual stream, all other components and the latents held. Across steps: through the latents alone. An effect "
    "that is large for a component and small on all paths from it goes through several of them at once."
)
ROADS = "The same within a step for receivers with attention, by the input that is changed: its queries, keys or values."
VIDEOS = (
    "The run that receives, the run that gives, and the first one with the circuit's components of the second, with everything "
    "but them, and with the controls; the second one with the circuit set back to the first. Table: whose answer is read, "
    "strictly, of every unseen pair; those with a link have their videos here."
)
SET = "Narrowed: at the steps and heads without which the set loses no more than 0.05 on the pairs of the search."


def report(result: AnalysisResult[CircuitConfig], store: RunStore) -> Report:
    found, circuit = findings(result), circuit_of(result)
    rows = result.rows if len(result.rows) else pd.DataFrame(columns=["table", "pair", "effect"])
    rows = rows.assign(effect=effect(rows.effect))
    sections = [
        *_maps(result, rows),
        *_heads(result, rows),
        *_sets(circuit),
        *_checks(rows),
        *_videos(result, rows, store),
        *_paths(rows),
        _pairs(result),
    ]
    made = pages.build(result, f"Circuit: {_of(result)}", QUESTION, SOURCE, found, sections, _notes(result, circuit))
    if circuit is None:
        return made
    told = circuit if result.config.check else _told(circuit, found, result)
    text = told.model_dump_json() + "\n"  # one line, as all files of JSON that settings name
    return replace(made, media={**made.media, "circuit.json": text.encode()}, data={**made.data, "circuit": told.model_dump()})


def circuit_of(result: AnalysisResult[CircuitConfig]) -> Circuit | None:
    """The circuit that was found, or that was asked to be tested."""
    if result.config.check:
        return Circuit.model_validate_json(Path(result.config.check).read_bytes())
    return next((facts.circuit for facts in result.units_of(SearchFacts).values()), None)


def _of(result: AnalysisResult[CircuitConfig]) -> str:
    return result.config.task if result.config.pair_file is None else "own pairs"


def _told(circuit: Circuit, found: Sequence[Finding], result: AnalysisResult[CircuitConfig]) -> Circuit:
    """With the model that it is of, and the numbers on unseen pairs."""
    model = {key: result.facts["model"].get(key) for key in ("name", "digest")}
    plain = lambda value: None if isinstance(value, float) and math.isnan(value) else value
    checks = {f.key: {k: plain(v) for k, v in asdict(f.number).items()} | {"verdict": f.verdict} for f in found}
    return circuit.model_copy(update={"model": model, "checks": checks})


def _notes(result: AnalysisResult[CircuitConfig], circuit: Circuit | None) -> list[str]:
    notes = none_left(result.config, result.units)
    if circuit is not None:
        notes.append(f"The circuit: {'; '.join(map(str, circuit.components))}.")
        if result.config.check:
            kind = f", a {circuit.transformer}" if circuit.transformer else ""
            weights = (circuit.model.get("digest") or "")[:12]
            notes.append(f"It was found in {circuit.model.get('name')} (weights {weights}){kind}.")
        else:
            smaller = f"the best of {circuit.tried_smaller} sets with one less has {circuit.smaller_effect:.2f}"
            said = smaller if circuit.smaller else "a smaller one would be empty"
            notes.append(f"On the pairs of the search it has {circuit.effect:.2f} of {circuit.whole:.2f}; {said}.")
    for searched in result.units_of(SearchFacts).values():
        if searched.circuit is None:
            notes.append(f"No circuit was found: {searched.why}.")
    missing: dict[str, list[str]] = {}
    for name, left in result.units_of(LeftOut).items():
        missing.setdefault(left.reason, []).append(name)
    return notes + [f"{len(names)} part(s) left out ({names[0]}, ...): {reason}" for reason, names in missing.items()]


def _maps(result: AnalysisResult, rows: pd.DataFrame) -> list[pages.Section]:
    if not (rows.table == "flow").any():
        return []
    sigmas = list(result.first(PairFacts).sigmas)[:-1]
    out = [pages.Section("Where the answer goes", *flow(rows, sigmas, result.first(PairFacts).prompts))]
    at = rows[rows.table == "group"]
    if len(at) and at.group.nunique() > 1:
        named = at.assign(place=at.part + " " + at.layer.astype(int).astype(str), group=at.group.str.replace("_", " "))
        table = named.pivot_table(index="place", columns="group", values="effect").loc[list(dict.fromkeys(named.place))]
        table = table[list(dict.fromkeys(named.group))]
        caption = "The strongest parts of blocks by token group, each patched alone in all steps: mean effect over pairs."
        out.append(pages.Section("By token group", None, caption, table.reset_index()))
    return out


def _heads(result: AnalysisResult, rows: pd.DataFrame) -> list[pages.Section]:
    """The strongest parts head by head, for each pair: what the means of the figure hide."""
    at = rows[rows.table == "head"]
    if at.empty:
        return []
    about = result.units_of(PairFacts)
    said = [f"“{receives}” gets “{gives}”" for receives, gives in (about[name].prompts for name in at.pair)]
    named = at.assign(place=at.part + " " + at.layer.astype(int).astype(str), said=said)
    order = {place: number for number, place in enumerate(dict.fromkeys(named.place))}
    table = named.pivot_table(index=["place", "pair", "said"], columns="head", values="effect").reset_index()
    table = table.sort_values(["place", "pair"], key=lambda column: column.map(order) if column.name == "place" else column)
    heads = {number: f"head {int(number)}" for number in sorted(at["head"].unique())}
    shown = table[["place", "said", *heads]].rename(columns={"said": "pair", **heads})
    return [pages.Section("Head by head, pair by pair", caption=HEADS, table=shown)]


def _sets(circuit: Circuit | None) -> list[pages.Section]:
    if circuit is None:
        return []
    line = lambda kind, one: {
        "set": kind, "part": one.part, "layer": str(one.layer), "tokens": one.group,
        "steps": f"{min(one.steps)} to {max(one.steps)}",
        "heads": "all" if one.heads is None else "+".join(map(str, one.heads)),
    }  # fmt: skip
    kinds: list[tuple[str, Sequence[Component]]] = [
        ("circuit", circuit.components), ("narrowed", circuit.narrow), ("one component less", circuit.smaller),
    ]  # fmt: skip
    table = pd.DataFrame([line(kind, one) for kind, chosen in kinds for one in chosen])
    return [pages.Section("The components", caption=SET, table=table)]


def _checks(rows: pd.DataFrame) -> list[pages.Section]:
    at = rows[rows.table == "check"] if "way" in rows else rows.iloc[:0]
    if at.empty:
        return []
    table = pd.DataFrame([_way(name, at[at.way == way]) for way, name in WAYS.items() if (at.way == way).any()])
    draws = int((at.way == RANDOM).groupby(at.pair).sum().max())
    caption = CHECKS.format(n=at.pair.nunique(), draws=draws)
    return [pages.Section("On unseen pairs", figures.bars(effects(at), "effect", 0.0), caption, table, key=True)]


def effects(at: pd.DataFrame) -> pd.DataFrame:
    """The effect of each way on unseen pairs, for a figure: what the verdicts hold against each other."""
    numbers = {name: _over(at[at.way == way], "effect", EFFECT) for way, name in WAYS.items() if (at.way == way).any()}
    return points(numbers, "name")


def _over(at: pd.DataFrame, column: str, bounds: tuple[float, float] = (0, 1)) -> Number:
    """A mean over pairs, several sets of a pair averaged."""
    return Mean(at[column].astype(float).groupby(at.pair).mean().to_numpy(float), bounds=bounds).number()


def _way(name: str, at: pd.DataFrame) -> dict[str, Any]:
    over = lambda column, bounds=(0, 1): str(_over(at, column, bounds))
    row: dict[str, Any] = {"patched": name, "effect": over("effect", EFFECT)}
    if "outcome" in at and at.outcome.notna().all():
        counts = at.outcome.value_counts()
        row |= {f"reads: {who}": int(counts.get(who, 0)) for who in ("donor", "target", "other", "undecided")}
    if "donor_shown" in at and at.donor_shown.notna().any():
        row |= {"donor's answer shown": over("donor_shown"), "own answer shown": over("target_shown")}
    return row


def _videos(result: AnalysisResult, rows: pd.DataFrame, store: RunStore) -> list[pages.Section]:
    """Both runs of an unseen pair beside what the circuit, all else and the controls make of them; every pair's reading."""
    about = result.units_of(PairFacts)
    say = {"effect": "effect", "donor's answer": "donor_shown", "its own": "target_shown"}
    reels = [
        one.reel(say=say, text="; ".join(f"“{prompt}”" for prompt in about[one.unit].prompts))
        for one in kept_clips(result, store, PairFacts)
    ]
    at = rows[rows.table == "check"] if "way" in rows else rows.iloc[:0].assign(way=[])
    first = at.drop_duplicates(["pair", "way"])  # of several random sets the one that is shown
    told = videos(first, lambda row: SHOWN.get(row["way"]) or SHOWN.get(f"{row['way']} 0"), reels, "pair")
    return [pages.Section("Videos", caption=VIDEOS, reels=reels, table=told)] if reels else []


def _paths(rows: pd.DataFrame) -> list[pages.Section]:
    at = rows[rows.table == "path"] if "road" in rows else rows.iloc[:0]
    if at.empty:
        return []
    maps = []
    order = list(dict.fromkeys([*at.sender, *at.receiver]))
    for when in ("within", "across"):
        mine = at[(at.when == when) & (at.road == "all")]
        if len(mine):
            table = mine.pivot_table(index="sender", columns="receiver", values="effect")
            table = table.reindex(index=[n for n in order if n in table.index], columns=[n for n in order if n in table.columns])
            short = lambda name: name.replace(" at ", "\n").replace("_", " ")
            maps.append((f"{when} a step" if when == "within" else "across steps", table.rename(index=short, columns=short)))
    figure = figures.matrix_maps(maps, "receiver", "sender", "effect", diverging=True, columns=2)
    out = [pages.Section("Paths", figure, PATHS.format(n=at.pair.nunique()))]
    if len(roads := at[at.road != "all"]):
        table = roads.groupby(["sender", "receiver", "road"], sort=False).effect.mean().unstack("road").reset_index()
        out.append(pages.Section("Queries, keys, values", caption=ROADS, table=table))
    return out


def _pairs(result: AnalysisResult) -> pages.Section:
    table = pd.DataFrame([
        {
            "pair": facts.pair, "receives": f"“{facts.prompts[0]}”", "gives": f"“{facts.prompts[1]}”",
            "tokens": ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in facts.tokens.items()),
        }
        for name, facts in result.units_of(PairFacts).items() if name.startswith(("coarse", "check"))
    ])  # fmt: skip
    return pages.Section("The pairs", table=table)
