"""The memory analysis on a page. Knows rows and stored features, not models."""

from __future__ import annotations

import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.kept import kept_clips, videos
from cos_interp.analyses.driver.statistics import by_item, curve, items_each
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.memory import conclusions, label, tracking
from cos_interp.analyses.memory.decoding import KINDS
from cos_interp.analyses.memory.knockout import CUTS, SETS
from cos_interp.analyses.memory.places import elsewhere
from cos_interp.analyses.memory.reader import has_points, reader_table
from cos_interp.reports.figures import Curve, Panel, matrix_maps, panels, step_ticks
from cos_interp.reports.grouped import grouped_points

QUESTION = (
    "Are the objects of the first frame kept in their tokens while the video is made, and are these tokens used? Read: "
    "attention they receive, likeness to their own first state, decodability of an object where it stands hidden, "
    "query-key tracking. Caused: attention from the other frames to an object is cut, against another object of the same frame."
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
    "Share of points at which a logistic reader names the class, items left out of its training. It learns from objects in sight "
    "only. Visible: objects in sight; hidden: objects where they stand out of sight; bare: cells as covered that hide nothing, "
    "where it would have to name what is hidden elsewhere in the frame. x_t: the same reader of the noisy latent; shuffled: "
    "taught labels in random order. Over items whose run is right; brackets: 95 % interval-t over items."
)
TRACKED = (
    "Forward: the object's query in the first frame, its best matching key in a later frame lies in the object's true cell. "
    "Backward: the query of that cell in the later frame, its best key in the first frame is the object's. Other cells: the "
    "share of all other cells' queries that find the same. Brackets: 95 % interval-t over items. The best place in the table is "
    "picked after the fact and reads high; the findings pick and test on different items."
)
READINGS = {
    "kept": "frames with the object right",
    "returned": "after it was out of sight",
    "kept_other": "frames with another object right",
    "solved": "solved",
}
SAID = {"object kept": "kept", "other object kept": "kept_other", "latent changed by": "change"}
VIDEOS = (
    "Final videos with attention to some tokens cut in all steps and layers, beside the untouched one. Table: what is read in "
    "them, of every item that was cut; those with a link have their videos here."
)
STAYS = {"stays put": "static", "chance": "chance"}
CHANGE = "change of the final latent / its norm"
CUT = (
    "Attention from other frames' queries to the tokens is set to 0 in all heads, the rest scaled to sum 1. Object: its tokens "
    "in the first frame; another object: those of one that the prompt does not name, in items that have one; random: as many "
    "other tokens; column: the same cells in every frame. Whiskers and brackets: 95 % intervals over items, n in the "
    "table; dashes: untouched."
)


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows, sigmas = result.rows, result.sigmas
    parts = {kind: rows[rows.kind == kind] for kind in ("attention", "similarity", "tracking", "knockout")}
    cut, tracked, decoded = parts["knockout"], parts["tracking"], reader_table(result, store)
    notes = []
    if rows.task.eq("prompts").all():
        notes.append("These problems have no verifier and no known object: “object” is a chosen cell, outcomes are not scored.")
    found = conclusions.used(result, cut) if len(cut) and cut.solved.notna().any() else []
    found += [conclusions.decodable(result, decoded)] if has_points(result) else []
    if len(tracked):
        found += [*tracking.findings(result, tracked), conclusions.attended(result, parts["attention"], elsewhere(result, store))]
    sections = [
        *([knockout_section(cut), videos_section(result, cut, store)] if len(cut) else []),
        *attention_sections(parts["attention"], sigmas),
        similarity_section(parts["similarity"], sigmas),
        *([decoded_section(decoded, sigmas)] if len(decoded) else []),
        *([tracking_section(tracked, sigmas)] if len(tracked) else []),
    ]
    source = "CoS section 4; DiffTrack (2506.17220)"
    return pages.build(result, "Working memory", QUESTION, source, found, sections, notes, ("cause", "correlation"))


def mapped(
    title: str, made: list[tuple[str, pd.DataFrame, str]], sigmas: list[float], label: str, caption: str,
    bounds: tuple[float, float] | None = None, table: pd.DataFrame | None = None,
) -> pages.Section:  # fmt: skip
    """Layer x step, items weighted equally: of each title, rows and value a map."""
    tables = [(title, tracking.accuracy_map(rows, value)) for title, rows, value in made]
    figure = matrix_maps(tables, "step, sigma", "layer", label, bounds, columns=2, xticks=step_ticks(sigmas))
    of = [n for _, rows, _ in made for n in items_each(rows, ["layer", "step"])]
    return pages.Section(title, figure, caption, table, of=of)


def knockout_section(cut: pd.DataFrame) -> pages.Section:
    readings = READINGS if cut.solved.notna().any() else {"change": CHANGE}
    readings = {value: text for value, text in readings.items() if cut[value].notna().any()}
    figure = grouped_points([(text, cut_points(cut, value)) for value, text in readings.items()], "untouched")
    return pages.Section("Attention cut", figure, CUT, knockout_table(cut, readings))


def videos_section(result: AnalysisResult, cut: pd.DataFrame, store: RunStore) -> pages.Section:
    """The cut runs' videos beside the untouched one, and what is read in those of every item."""
    reels = [one.reel(say=SAID) for one in kept_clips(result, store)]
    return pages.Section("Videos", caption=VIDEOS, reels=reels, table=videos(cut, label, reels))


def cut_points(cut: pd.DataFrame, value: str) -> pd.DataFrame:
    """Marks by ``place, series``: every cut with the sets of tokens that it was made on, and the untouched runs."""
    drawn = [("", "untouched", by_item(cut[cut.tokens == "none"], value))]
    for step_part, layer_part in CUTS:
        at = cut[(cut.step_part == step_part) & (cut.layer_part == layer_part)]
        drawn += [(cut_name(step_part, layer_part), tokens, by_item(at[at.tokens == tokens], value)) for tokens in SETS]
    return pd.DataFrame([{"place": place, "series": series, **number.point} for place, series, number in drawn if number.n])


def cut_name(step_part: str, layer_part: str) -> str:
    if step_part == layer_part == "all":
        return "everywhere"
    return f"{layer_part} layers" if step_part == "all" else f"{step_part} steps"


def knockout_table(cut: pd.DataFrame, readings: dict[str, str]) -> pd.DataFrame:
    """One row a task, reading and cut; a column for each set of tokens."""
    out = []
    for task, part in cut.groupby("task", sort=False):
        for value, text in readings.items():
            none = by_item(part[part.tokens == "none"], value)
            for step_part, layer_part in CUTS if none.n else ():
                at = part[(part.step_part == step_part) & (part.layer_part == layer_part)]
                about = {"task": task, "reading": text, "cut": cut_name(step_part, layer_part)}
                cells = {name: _short(by_item(at[at.tokens == name], value), none.n) for name in SETS}
                out.append({**about, "n": none.n, "untouched": _short(none, none.n), **cells})
    return pd.DataFrame(out)


def _short(number: Number, n: int) -> str:
    """Without its n where that is the row's, a dash where the cut was not made."""
    if not number.n:
        return "–"
    return str(number).rsplit(" (n", 1)[0] if number.n == n else str(number)


def attention_sections(rows: pd.DataFrame, sigmas: list[float]) -> list[pages.Section]:
    names = ("object", "other")
    curves = [Curve(name, curve(rows, name, "frame")) for name in names]
    by_frame = panels([Panel("by frame of the query", curves, "frame", "latent frame", "multiples of even attention")])
    return [
        mapped("Attention received", [(name, rows, name) for name in names], sigmas, "x even", ATTENTION),
        pages.Section("Attention received, by frame", by_frame, "The same by latent frame of the query, over layers and steps."),
    ]


def similarity_section(rows: pd.DataFrame, sigmas: list[float]) -> pages.Section:
    later, first = rows[rows.frame > 0], rows[rows.frame == 0]
    made = [("object, first frame", first, "object"), ("other, first frame", first, "other")]
    made += [("object, later frames", later, "object"), ("other, later frames", later, "other")]
    kept = [(title, part.dropna(subset=[value]), value) for title, part, value in made]
    return mapped("Likeness to the first step", [one for one in kept if len(one[1])], sigmas, "cosine", ALIKE)


def decoded_section(decoded: pd.DataFrame, sigmas: list[float]) -> pages.Section:
    parts = {(source, kind): part.dropna(subset=[kind]) for source, part in decoded.groupby("source") for kind in KINDS}
    drawn = [(f"{kind}, {source}", part, kind) for (source, kind), part in parts.items() if source != "x_t" and len(part)]
    summary = [
        {"read from": source, "at": kind, "right, all layers and steps": str(_over_items(part, kind))}
        for (source, kind), part in parts.items()
    ]
    return mapped("Hidden objects decoded", drawn, sigmas, "right", DECODED, (0, 1), pd.DataFrame(summary))


def _over_items(rows: pd.DataFrame, value: str) -> Number:
    return Mean(rows.groupby("problem")[value].mean().to_numpy(float)).number()


def tracking_section(rows: pd.DataFrame, sigmas: list[float]) -> pages.Section:
    parts = [("all frames", rows), ("moved", tracking.moved(rows))]
    kinds = {"hit": "forward", "hit_back": "backward"}
    made = [(f"{text}, {title}", part, value) for title, part in parts if len(part) for value, text in kinds.items()]
    return mapped("Query-key tracking", made, sigmas, "right cell", TRACKED, (0, 1), tracking_table(rows))


def tracking_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a task and choice of frames; its columns compare the object's queries with those of all other cells."""
    out = []
    for task, part in rows.groupby("task", sort=False):
        for name, some in (("all", part), ("moved", tracking.moved(part))):
            if some.empty:
                continue
            row = {"task": task, "frames": name}
            for (value, other), text in ((tracking.FORWARD, "forward"), (tracking.BACKWARD, "backward")):
                best = tracking.accuracy_map(some, value).stack()
                layer, step = best.idxmax()
                row[f"{text}, all layers and steps"] = str(_over_items(some, value))
                row[f"{text}, other cells"] = f"{_over_items(some, other).value:.2f}"
                row[f"best {text} (layer, step)"] = f"{best.max():.2f} ({layer}, {step})"
            row |= {name: f"{_over_items(some, value).value:.2f}" for name, value in STAYS.items()}
            out.append(row)
    return pd.DataFrame(out)
