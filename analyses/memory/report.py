"""The memory analysis on a page. Knows rows and stored features, not models."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Finding, Number, decide
from cos_interp.analyses.driver.statistics import by_item, curve, mean_number, paired
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.memory import MemoryFacts, decoding, tracking
from cos_interp.analyses.memory.knockout import CUTS, SETS
from cos_interp.probes import shuffled
from cos_interp.reports.figures import Curve, Panel, matrix_maps, panels
from cos_interp.reports.grouped import grouped_points

QUESTION = (
    "Are the objects of the first frame kept in their tokens while the video is made, and are these tokens used? Read: "
    "attention they receive, likeness to their own first state, decodability of an object where it stands hidden, "
    "query-key tracking. Caused: attention from the other frames to them is cut, against as many other tokens of the frame."
)
ATTENTION = (
    "Attention from the later frames to a token of the first frame, mean over heads, in multiples of even attention. Object: the "
    "tokens where the followed objects stand; other: the mean other token of that frame."
)
ALIKE = (
    "Cosine of a token's residual (after the block, without the mean over all tokens) with the one at step 0, in the tokens "
    "where the objects truly are, and in the other tokens of the same frames."
)
DECODED = (
    "Share of hidden objects (or covered cells) that a logistic probe names right, items left out of its training; x_t: the same "
    "probe on the noisy latent; shuffled: the same probe on labels in random order."
)
TRACKED = (
    "Forward: the object's query in the first frame, its best matching key in a later frame lies in the object's true cell. "
    "Backward: the query of that cell in the later frame, its best key in the first frame is the object's. The best place in the "
    "table is picked after the fact and reads high; the findings pick and test on different items."
)
CHANGE = "change of the final latent / its norm"
CUT = (
    "Attention from other frames' queries to the tokens is set to 0 in all heads, the rest scaled to sum 1. Object: its tokens "
    "in the first frame; column: the same cells in every frame; random: as many other tokens. Whiskers: 95 %, dashes: untouched."
)


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows = result.rows
    sigmas = result.sigmas
    parts = {kind: rows[rows.kind == kind] for kind in ("attention", "similarity", "tracking", "knockout")}
    decoded = probe_table(result, store)
    found, notes = [], []
    if len(decoded):
        found.append(decodable(decoded))
    if rows.task.eq("prompts").all():
        notes.append("These problems have no verifier and no known object: “object” is a chosen cell, outcomes are not scored.")
    cut = parts["knockout"]
    if len(cut) and cut.solved.notna().any():
        found = used(cut) + found
    if len(parts["tracking"]):
        found += [tracking.finding(parts["tracking"], value) for value in ("hit", "hit_back")]
        found.append(attended(parts["attention"]))
    sections = [
        *([knockout_section(cut)] if len(cut) else []),
        attention_section(parts["attention"], sigmas),
        similarity_section(parts["similarity"], sigmas),
        *([decoded_section(decoded, sigmas)] if len(decoded) else []),
        *([tracking_section(parts["tracking"], sigmas)] if len(parts["tracking"]) else []),
    ]
    source = "CoS section 4; DiffTrack (2506.17220)"
    return pages.build(result, "Working memory", QUESTION, source, found, sections, notes)


# --- findings ----------------------------------------------------------------------------------------------------------


def used(cut: pd.DataFrame) -> list[Finding]:
    """What cutting the object's tokens costs beyond cutting random tokens of the same frame: the object, and the verdict.

    Cut everywhere, any token of the first frame costs the verifier's verdict, which asks for every cell; so the verdict is
    compared over the partial cuts, all of them together, so that no favourable one is picked.
    """
    everywhere = (cut.step_part == "all") & (cut.layer_part == "all")
    untouched = cut[cut.tokens == "none"]
    return [
        _cost(
            cut[everywhere], "kept", "Objects of the first frame are held in working memory and used later (4)",
            "frames that show the object right, attention cut everywhere",
        ),
        _cost(
            pd.concat([cut[~everywhere], untouched]), "solved",
            "The answer needs the first frame's object tokens more than others (4)", "solved, over the six partial cuts",
        ),
    ]  # fmt: skip


def _cost(cut: pd.DataFrame, value: str, claim: str, what: str) -> Finding:
    by = {name: part.groupby("problem")[value].mean().astype(float) for name, part in cut.groupby("tokens")}
    extra, random = paired(by["random"], by["object"]), paired(by["none"], by["random"])
    none, own = (mean_number(by[name].to_numpy()) for name in ("none", "object"))
    return Finding(
        claim, decide(extra.low, extra.high),
        f"{what}: {none} untouched, {own} without the object's tokens; without as many other tokens it is higher, by",
        extra, "lost without as many other tokens", random, "the interval of the paired difference lies above 0",
    )  # fmt: skip


def attended(rows: pd.DataFrame) -> Finding:
    each = rows.groupby("problem")[["object", "other"]].mean()
    more = paired(each.object, each.other)
    return Finding(
        "Later frames look back at the first frame's objects (4)", decide(more.low, more.high),
        "a token of the object gets more attention than the mean other token of its frame, in multiples of even attention, by",
        more, "what the mean other token gets", by_item(rows, "other"), "the interval of the difference lies above 0",
    )  # fmt: skip


def decodable(decoded: pd.DataFrame) -> Finding:
    """Identity from the residuals, all layers and steps together, so that nothing is picked."""
    identity = decoded[decoded.target == "identity"]
    each = {source: part.groupby("problem").accuracy.mean() for source, part in identity.groupby("source")}
    nothing = pd.Series(dtype=float)
    gain = paired(each.get("residual", nothing), each.get("x_t", nothing))
    above = paired(each.get("residual", nothing), each.get("shuffled", nothing))
    accuracy = by_item(identity[identity.source == "residual"], "accuracy")
    control = by_item(identity[identity.source == "shuffled"], "accuracy")
    return Finding(
        "A hidden object stays represented while it is out of sight (4)",
        decide(min(gain.low, above.low), max(gain.high, above.high)),
        f"its identity is read in {accuracy} of the cases, above the same probe on x_t by", gain,
        "accuracy with shuffled labels", control,
        "mean over all layers and steps; the intervals of residual minus x_t and residual minus shuffled lie above 0",
    )  # fmt: skip


# --- probes ------------------------------------------------------------------------------------------------------------


def probe_table(result: AnalysisResult, store: RunStore) -> pd.DataFrame:
    """Accuracy per item of every probe: columns ``target, source, step, layer, problem, accuracy`` (layer -1: x_t)."""
    units = result.units_of(MemoryFacts)
    held = {unit: store.tensors(unit) for unit, facts in units.items() if "label" in facts.axes}
    if not held:
        return pd.DataFrame()
    steps = next(units[unit].steps for unit in held)
    labels = np.concatenate([t["label"].numpy() for t in held.values()])
    groups = np.concatenate([[unit] * len(t["label"]) for unit, t in held.items()])
    residual = np.concatenate([t["residual"].numpy() for t in held.values()], axis=2)
    x_t = np.concatenate([t["x_t"].numpy() for t in held.values()], axis=1)
    tables = [(step, layer, "residual", residual[i, layer]) for i, step in enumerate(steps) for layer in range(residual.shape[1])]
    tables += [(step, -1, "x_t", x_t[i]) for i, step in enumerate(steps)]
    rows = []
    for step, layer, source, features in tables:
        for target, used_rows, wanted in targets(labels):
            chosen, items = wanted[used_rows], groups[used_rows]
            made = [(source, chosen)]
            made += [("shuffled", shuffled(chosen, items))] if source == "residual" else []
            for name, answer in made:
                scores = decoding.per_item(decoding.cross_validated(features[used_rows], answer, items), items)
                about = {"target": target, "source": name, "step": step, "layer": layer}
                rows += [{**about, "problem": problem, "accuracy": score} for problem, score in scores.items()]
    return pd.DataFrame(rows)


def targets(labels: np.ndarray) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """What is decoded, on which samples, with which labels: who is hidden, and whether anything is hidden at a covered cell."""
    hidden = labels != decoding.NOTHING
    return [("identity", hidden, labels), ("place", np.ones(len(labels), bool), hidden.astype(int))]


# --- sections ----------------------------------------------------------------------------------------------------------


def layer_step(rows: pd.DataFrame, value: str, sigmas: list[float]) -> pd.DataFrame:
    """Layer x step, items weighted equally; columns named by step and sigma."""
    table = tracking.accuracy_map(rows, value)
    return table.rename(columns=lambda k: f"{k}\n{sigmas[int(k)]:.2f}")


def maps(made: list[tuple[str, pd.DataFrame]], label: str, bounds: tuple[float, float] | None = None) -> str:
    return matrix_maps(made, "step, sigma", "layer", label, bounds, columns=2)


def knockout_section(cut: pd.DataFrame) -> pages.Section:
    readings = {"kept": "frames with the object right", "solved": "solved"} if cut.solved.notna().any() else {"change": CHANGE}
    figure = grouped_points([(text, cut_points(cut, value)) for value, text in readings.items()], "untouched")
    return pages.Section("Attention cut", figure, CUT, knockout_table(cut, readings))


def cut_points(cut: pd.DataFrame, value: str) -> pd.DataFrame:
    """``place, series, mean, low, high``: every cut with its four sets of tokens, and the untouched runs."""
    drawn = [("", "untouched", by_item(cut[cut.tokens == "none"], value))]
    for step_part, layer_part in CUTS:
        at = cut[(cut.step_part == step_part) & (cut.layer_part == layer_part)]
        drawn += [(cut_name(step_part, layer_part), tokens, by_item(at[at.tokens == tokens], value)) for tokens in SETS]
    return pd.DataFrame([{"place": p, "series": s, "mean": v.value, "low": v.low, "high": v.high} for p, s, v in drawn])


def cut_name(step_part: str, layer_part: str) -> str:
    if step_part == layer_part == "all":
        return "everywhere"
    return f"{layer_part} layers" if step_part == "all" else f"{step_part} steps"


def knockout_table(cut: pd.DataFrame, readings: dict[str, str]) -> pd.DataFrame:
    """One row a task, reading and cut; a column for each set of tokens."""
    out = []
    for task, part in cut.groupby("task", sort=False):
        for value, text in readings.items():
            none = _short(by_item(part[part.tokens == "none"], value))
            for step_part, layer_part in CUTS:
                at = part[(part.step_part == step_part) & (part.layer_part == layer_part)]
                about = {"task": task, "reading": text, "cut": cut_name(step_part, layer_part), "n": at.problem.nunique()}
                cells = {name: _short(by_item(at[at.tokens == name], value)) for name in SETS}
                out.append({**about, "untouched": none, **cells})
    return pd.DataFrame(out)


def _short(number: Number) -> str:
    return str(number).rsplit(" (n", 1)[0]


def attention_section(rows: pd.DataFrame, sigmas: list[float]) -> pages.Section:
    made = [(name, layer_step(rows, name, sigmas)) for name in ("object", "other")]
    curves = [Curve(name, curve(rows, name, "frame")) for name in ("object", "other")]
    by_frame = panels([Panel("by frame of the query", curves, "frame", "latent frame", "multiples of even attention")])
    return pages.Section("Attention received", maps(made, "x even") + by_frame, ATTENTION)


def similarity_section(rows: pd.DataFrame, sigmas: list[float]) -> pages.Section:
    later, first = rows[rows.frame > 0], rows[rows.frame == 0]
    made = [("object, first frame", first, "object"), ("other, first frame", first, "other")]
    made += [("object, later frames", later, "object"), ("other, later frames", later, "other")]
    kept = [(title, part.dropna(subset=[value]), value) for title, part, value in made]
    tables = [(title, layer_step(part, value, sigmas)) for title, part, value in kept if len(part)]
    return pages.Section("Likeness to the first step", maps(tables, "cosine"), ALIKE)


def decoded_section(decoded: pd.DataFrame, sigmas: list[float]) -> pages.Section:
    named = {"residual": "residual", "shuffled": "shuffled labels"}
    tables = [
        (f"{target}, {text}", layer_step(part, "accuracy", sigmas))
        for target in ("identity", "place")
        for source, text in named.items()
        if len(part := decoded[(decoded.target == target) & (decoded.source == source)])
    ]
    summary = [
        {"decoded": target, "from": source, "right": str(by_item(part, "accuracy"))}
        for (target, source), part in decoded.groupby(["target", "source"])
    ]
    return pages.Section("Hidden objects decoded", maps(tables, "right", (0, 1)), DECODED, pd.DataFrame(summary))


def tracking_section(rows: pd.DataFrame, sigmas: list[float]) -> pages.Section:
    parts = [("all frames", rows), ("moved", tracking.moved(rows))]
    kinds = {"hit": "forward", "hit_back": "backward"}
    tables = [
        (f"{text}, {title}", layer_step(part, v, sigmas)) for title, part in parts if len(part) for v, text in kinds.items()
    ]
    return pages.Section("Query-key tracking", maps(tables, "right cell", (0, 1)), TRACKED, tracking_table(rows))


def tracking_table(rows: pd.DataFrame) -> pd.DataFrame:
    out = []
    for task, part in rows.groupby("task", sort=False):
        for name, some in (("all", part), ("moved", tracking.moved(part))):
            if some.empty:
                continue
            row = {"task": task, "frames": name}
            for value, text in (("hit", "forward"), ("hit_back", "backward")):
                best = tracking.accuracy_map(some, value).stack()
                layer, step = best.idxmax()
                row[f"{text}, all layers and steps"] = str(by_item(some, value))
                row[f"best {text} (layer, step)"] = f"{best.max():.2f} ({layer}, {step})"
            row |= {"stays put": f"{by_item(some, 'static').value:.2f}", "chance": f"{by_item(some, 'chance').value:.2f}"}
            out.append(row)
    return pd.DataFrame(out)
