"""The attention analysis on a page. Knows rows and stored maps, not models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from cos_interp.analyses.attention import AttentionFacts
from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Finding, Number
from cos_interp.analyses.driver.kept import listed
from cos_interp.analyses.driver.statistics import items_each
from cos_interp.analyses.driver.store import RunStore
from cos_interp.analyses.kit.halves import chosen
from cos_interp.analyses.kit.words import UNKNOWN
from cos_interp.interp.views import pixel_to_latent
from cos_interp.reports.drawing import Drawing
from cos_interp.reports.figures import matrix_maps, step_ticks
from cos_interp.reports.grid_maps import grid_maps

QUESTION = (
    "Where do heads look: near or far, in their own frame or others, at few tokens or many, and which words do places read?"
)
STATISTICS = {  # what the verdict is about first
    "distance": "distance within the picture, cells",
    "entropy": "entropy, bits",
    "frame_distance": "distance in latent frames",
    "own_frame": "share within the own frame",
    "first_frame": "share to the first frame",
    "sink": "share of the most attended token",
}
OVER = (
    "The final video of one item of each task. Laid over it: how much one token looks at every other, or every token at a word "
    "of the prompt, in one step, layer and head. Of the first, click a cell for the token that looks (framed), or choose "
    "it from the list. Each map is scaled to its own largest value, which is told."
)
TO_TEXT = (
    "From tokens to the text, by layer and head; of joint attention that part of it which goes to the text. Layers that do not "
    "read the text are left out."
)
TEXT = {
    "entropy": "entropy, bits",
    "words": "share to the words (rest: end mark, padding, a picture)",
    "sink": "share of the most read token",
}


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows = result.rows
    facts = result.first(AttentionFacts)
    within, across, words, named = (rows[rows.kind == kind] for kind in ("self", "text", "word", "named"))
    found = [local(result, within), *([spoken(result, named)] if len(named) else [])]
    notes = []
    if facts.words and words.empty:
        notes.append("No verifier: where the words' objects stand is not known, so words are shown, not scored.")
    if not facts.words:
        notes.append(f"No maps of words: {UNKNOWN}.")
    sections = [
        *head_sections(within, STATISTICS, "Heads", "Self-attention, mean over queries, steps and items, by layer and head."),
        *step_sections(within, facts.sigmas),
        *(head_sections(across, TEXT, "Text attention", TO_TEXT) if len(across) else []),
        *(word_sections(words, named) if len(words) else []),
        over_videos(store, result, item_table(within, named)),
        *[section for unit, about in first_of_each_task(result).items() for section in map_sections(store, unit, about)],
    ]
    source = "CoS section 5.1; Wen et al. (2504.10317: structure of attention); ConceptAttention (2502.04320: words)"
    return pages.build(result, "Attention", QUESTION, source, found, sections, notes, ("correlation",))


def local(result: AnalysisResult, within: pd.DataFrame) -> Finding:
    """Are rows of attention nearer to their own query than to a random other query? A permutation keeps all else."""
    each = within.groupby("problem")[["distance", "shuffled_distance"]].mean()
    own, shuffled = (Mean(each[name].to_numpy(float)).number() for name in ("distance", "shuffled_distance"))
    said = f"the mean distance of what tokens look at, in cells, is {own}; given to other queries it is more, by a share of"
    return result.judge("attention.space", Mean(nearer(each)), said, shuffled)


def nearer(each: pd.DataFrame) -> pd.Series:
    """Share of the shuffled distance by which the own is shorter, an item: 0 for rows that do not depend on their query."""
    return (1 - each.distance / each.shuffled_distance).astype(float)


def spoken(result: AnalysisResult, named: pd.DataFrame) -> Finding:
    """A word is read at the object it names, more than elsewhere and than words that name nothing, by one head that other items
    chose."""
    (layer, head), tested = chosen_head(named)
    own, other = (Mean(tested[name].to_numpy(float)).number() for name in ("own_ratio", "other_ratio"))
    said = (
        f"layer {layer}, head {head}, best on the other half of items: log2 of a word's attention at the object that it names "
        f"over its mean in the first frame {own}, of words that name nothing {other}; more than theirs and than that mean, by"
    )
    return result.judge("attention.words", Mean(tested.excess.astype(float)), said, other)


def by_head(named: pd.DataFrame) -> pd.DataFrame:
    """A row a layer, head and item, means over steps. ``excess``: of a word's ratio over that of words that name nothing, or over
    0, its own mean in the first frame, whichever is larger: where these words avoid an object, one that is read there less than
    elsewhere is not drawn to it."""
    each = named.groupby(["layer", "head", "problem", "task"])[["own_ratio", "other_ratio"]].mean().reset_index()
    return each.assign(excess=each.own_ratio - each.other_ratio.clip(lower=0))


def chosen_head(named: pd.DataFrame) -> tuple[tuple[int, int], pd.DataFrame]:
    """Layer and head with the largest excess on one half of the items, and its numbers on the other half, a row an item."""
    (layer, head), tested = chosen(by_head(named), "excess", ["layer", "head"])
    return (layer, head), tested.set_index("problem")[["own_ratio", "other_ratio", "excess"]]


def head_sections(rows: pd.DataFrame, names: Mapping[str, str], title: str, caption: str) -> list[pages.Section]:
    """Layer x head, a section each statistic that was measured, of a scale of its own."""
    known = {value: said for value, said in names.items() if rows[value].notna().any()}
    of = {value: items_each(rows[rows[value].notna()], ["layer", "head"]) for value in known}
    return [pages.Section(f"{title}: {s}", head_map(rows, value, s), caption, of=of[value]) for value, s in known.items()]


def head_map(rows: pd.DataFrame, value: str, said: str) -> Drawing:
    """Layer x head, items weighted equally."""
    each = rows.groupby(["layer", "head", "problem"])[value].mean()
    table = each.groupby(["layer", "head"]).mean().unstack().rename(columns=int)
    return matrix_maps([("", table)], "head", "layer", said)


def step_sections(rows: pd.DataFrame, sigmas: Sequence[float]) -> list[pages.Section]:
    """Layer x step, mean over heads, a section each statistic."""
    ticks, caption = step_ticks(sigmas), "Self-attention, mean over queries, heads and items."
    made = {said: matrix_maps([("", layer_step(rows, value))], "step, sigma", "layer", said, xticks=ticks)
            for value, said in STATISTICS.items()}  # fmt: skip
    of = items_each(rows, ["layer", "step"])
    return [pages.Section(f"Along the steps: {said}", figure, caption, of=of) for said, figure in made.items()]


def layer_step(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """Layer x step, items weighted equally."""
    each = rows.groupby(["layer", "step", "problem"])[value].mean()
    return each.groupby(["layer", "step"]).mean().unstack()


def word_sections(words: pd.DataFrame, named: pd.DataFrame) -> list[pages.Section]:
    """By layer and step, and by the heads of which the verdict takes the best."""
    own = words[words.own.astype(bool)]
    tables = [("words at what they name", own), ("words that name nothing", words[words.other.astype(bool)])]
    maps = [(title, layer_step(part, "log2_ratio")) for title, part in tables if len(part)]
    figure = matrix_maps(maps, "step", "layer", "log2 ratio", diverging=True)
    table = [{"word": word, "log2 ratio at what it names": str(by_word(part))} for word, part in own.groupby("word")]
    caption = (
        "log2 of a word's attention at its object's cells of the first frame over its mean there, mean over heads: 0 is no "
        "preference. Intervals: 95 %, bootstrap-t over items."
    )
    of = [n for _, part in tables for n in items_each(part, ["layer", "step"])]
    sections = [pages.Section("Words and their objects", figure, caption, pd.DataFrame(table), of=of)]
    excess = by_head(named)
    if excess.excess.notna().any():
        caption = (
            "How far the log2 ratio of words at what they name lies above that of words that name nothing, and above 0; "
            f"{named.problem.nunique()} items. The verdict takes the best head of half of them and its excess on the others."
        )
        sections.append(pages.Section("Words by head", head_map(excess, "excess", "excess, log2"), caption))
    return sections


def by_word(part: pd.DataFrame) -> Number:
    """Mean of a word's ratio over items, layers and steps first averaged within an item."""
    return Mean(part.groupby("problem").log2_ratio.mean().to_numpy(float)).number()


def first_of_each_task(result: AnalysisResult) -> dict[str, AttentionFacts]:
    units = result.units_of(AttentionFacts)
    return {name: units[name] for name in result.rows.drop_duplicates("task").problem}


def over_videos(store: RunStore, result: AnalysisResult, told: pd.DataFrame) -> pages.Section:
    """Every map of the shown items over their videos, one at a time; and what is ``told`` of every item."""
    units = first_of_each_task(result)
    reels = [reel for unit, facts in units.items() if (reel := over_video(store, unit, facts)) is not None]
    return pages.Section("Over the video", caption=OVER, reels=reels, table=listed(told, result.rows, reels))


def item_table(within: pd.DataFrame, named: pd.DataFrame) -> pd.DataFrame:
    """A row an item: the numbers that the claims are decided by, those of words where they are tested."""
    each = within.groupby("problem", sort=False)[["distance", "shuffled_distance"]].mean()
    told = pd.DataFrame({"distance, cells": each.distance, "nearer than other queries by": nearer(each)})
    if len(named):
        (layer, head), tested = chosen_head(named)
        told[f"words at layer {layer}, head {head}: excess, log2"] = tested.excess
    return told


def over_video(store: RunStore, unit: str, facts: AttentionFacts) -> pages.Reel | None:
    tensors = store.tensors(unit)
    if "looks" not in tensors:
        return None
    maps, video = tensors["looks"].numpy(), tensors["frames"].numpy()
    heads, looks, frames = maps.shape[2:5]
    queries = facts.queries or (facts.query,)
    asked = facts.words if looks > len(queries) else ()
    axes = {
        "look": [f"token {', '.join(map(str, at))} at all" for at in queries] + [f"all at “{word}”" for word in asked],
        "step": [str(step) for step in facts.steps], "layer": [str(layer) for layer in facts.layers],
        "head": [str(head) for head in range(heads)],
    }  # fmt: skip
    laid = np.moveaxis(np.nan_to_num(maps), 3, 0)  # what is looked at first; 0 where a layer reads no text
    over = pages.Overlay(laid, axes, pixel_to_latent(len(video), frames).tolist(), queries)
    return pages.Reel(unit, f"“{facts.prompt}”", video[None], [pages.Shown("final video")], over=over)


def map_sections(store: RunStore, unit: str, facts: AttentionFacts) -> list[pages.Section]:
    """Maps of one item: its query by layer at the middle step and by step at the middle layer; then its words."""
    tensors = store.tensors(unit)
    said = f"“{facts.prompt}”. Each line is scaled to its own largest value."
    made = grid_maps(self_lines(tensors["self"], facts), "attention of the crossed token, by latent frame", facts.query)
    sections = [pages.Section(f"Maps: {unit}", made, said)]
    if "words" in tensors:
        step, reading = len(facts.steps) // 2, np.flatnonzero(tensors["words"].isfinite().flatten(2).all(2).all(0))
        layer = int(reading[len(reading) // 2])
        lines = [(word, tensors["words"][step, layer, i].numpy()) for i, word in enumerate(facts.words)]
        made = grid_maps(lines, f"attention to each word, layer {facts.layers[layer]}, step {facts.steps[step]}")
        sections.append(pages.Section(f"Maps of words: {unit}", made, said))
    return sections


def self_lines(maps: Tensor, facts: AttentionFacts) -> list[tuple[str, np.ndarray]]:
    """Named maps ``[frame, row, col]`` from ``[step, layer, head, frame, row, col]``."""
    steps, layers = facts.steps, facts.layers
    chosen = [(s, len(layers) // 2) for s in range(len(steps))]
    chosen += [(len(steps) // 2, i) for i in sorted({round(x) for x in np.linspace(0, len(layers) - 1, 4)})]
    lines = []
    for s, i in dict.fromkeys(chosen):
        for head in range(maps.shape[2]):
            name = f"step {steps[s]} ({facts.sigmas[steps[s]]:.2f}), layer {layers[i]}"
            name += f", head {head + 1} of those asked" if maps.shape[2] > 1 else ""
            lines.append((name, maps[s, i, head].numpy()))
    return lines
