"""The attention analysis on a page. Knows rows and stored maps, not models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from cos_interp.analyses.attention import AttentionFacts
from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Finding, decide
from cos_interp.analyses.driver.statistics import by_item, mean_number, paired
from cos_interp.analyses.driver.store import RunStore
from cos_interp.reports.figures import matrix_maps
from cos_interp.reports.grid_maps import grid_maps

QUESTION = (
    "Where do heads look: near or far, in their own frame or others, at few tokens or many, and which words do places read?"
)
STATISTICS = {
    "entropy": "entropy, bits",
    "distance": "distance within the picture, cells",
    "frame_distance": "distance in latent frames",
    "own_frame": "share within the own frame",
    "first_frame": "share to the first frame",
    "sink": "share of the most attended token",
}
TEXT = {
    "entropy": "entropy, bits",
    "words": "share to the words (rest: end mark, padding)",
    "sink": "share of the most read token",
}
SHOWN_STEPS = 3


def report(result: AnalysisResult, store: RunStore) -> Report:
    rows = result.rows
    facts = result.first(AttentionFacts)
    within, across, words = (rows[rows.kind == kind] for kind in ("self", "text", "word"))
    found = [local(within), *([spoken(words)] if len(words) else [])]
    notes = [] if len(words) else ["No verifier: where the words' objects stand is not known, so words are shown, not scored."]
    sections = [
        pages.Section(
            "Heads", head_maps(within, STATISTICS), "Self-attention, mean over queries, steps and items, by layer and head."
        ),
        pages.Section(
            "Along the steps", along_steps(within, facts.sigmas), "Self-attention, mean over queries, heads and items."
        ),
        pages.Section("Text attention", head_maps(across, TEXT), "From tokens to the prompt, by layer and head."),
        *([word_section(words)] if len(words) else []),
        *[map_section(store, unit, about) for unit, about in first_of_each_task(result).items()],
    ]
    source = "CoS section 5.1; Wen et al. (2504.10317: structure of attention); ConceptAttention (2502.04320: words)"
    return pages.build(result, "Attention", QUESTION, source, found, sections, notes)


def local(within: pd.DataFrame) -> Finding:
    """Are rows of attention nearer to their own query than to a random other query? A permutation keeps all else."""
    each = within.groupby("problem")[["distance", "shuffled_distance"]].mean()
    nearer = paired(each.shuffled_distance, each.distance)
    return Finding(
        "Attention of video DiTs is structured in space (2504.10317)", decide(nearer.low, nearer.high),
        f"tokens look {mean_number(each.distance.to_numpy())} cells away on average; given to other queries the same rows look "
        "farther, by",
        nearer, "distance of the same rows with the queries shuffled", mean_number(each.shuffled_distance.to_numpy()),
        "the interval of the difference lies above 0",
    )  # fmt: skip


def spoken(words: pd.DataFrame) -> Finding:
    """A word is read more at the object it names than elsewhere in the first frame, and more than words that name nothing."""
    own, other = (by_problem(words[words[name].astype(bool)]) for name in ("own", "other"))
    gain, control, more = mean_number(own.to_numpy()), mean_number(other.to_numpy()), paired(own, other)
    low = min(gain.low, more.low) if len(other) else gain.low
    return Finding(
        "Prompt-named objects draw their words' attention (5.1; ConceptAttention, 2502.04320)",
        decide(low, max(gain.high, more.high)),
        "log2 of a word's attention at the object it names over its mean in the first frame", gain,
        "words that name nothing, at the same cells", control,
        "the intervals of the value and of its excess over the control lie above 0",
    )  # fmt: skip


def by_problem(words: pd.DataFrame) -> pd.Series:
    return words.groupby("problem").log2_ratio.mean()


def head_maps(rows: pd.DataFrame, names: dict[str, str]) -> str:
    """Layer x head, one scale a statistic."""
    figures = []
    for value, title in names.items():
        table = (
            rows.groupby(["layer", "head", "problem"])[value]
            .mean()
            .groupby(["layer", "head"])
            .mean()
            .unstack()
            .rename(columns=int)
        )
        figures.append(matrix_maps([(title, table)], "head", "layer", ""))
    return "".join(figures)


def along_steps(rows: pd.DataFrame, sigmas: Sequence[float]) -> str:
    """Layer x step, mean over heads, one scale a statistic."""
    figures = []
    for value, title in STATISTICS.items():
        table = layer_step(rows, value).rename(columns=lambda k: f"{k}\n{sigmas[k]:.2f}")
        figures.append(matrix_maps([(title, table)], "step, sigma", "layer", ""))
    return "".join(figures)


def layer_step(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """Layer x step, items weighted equally."""
    each = rows.groupby(["layer", "step", "problem"])[value].mean()
    return each.groupby(["layer", "step"]).mean().unstack()


def word_section(words: pd.DataFrame) -> pages.Section:
    own = words[words.own.astype(bool)]
    tables = [("words at what they name", own), ("words that name nothing", words[words.other.astype(bool)])]
    maps = [(title, layer_step(part, "log2_ratio")) for title, part in tables if len(part)]
    table = [
        {"word": word, "log2 ratio at what it names": str(by_item(part, "log2_ratio"))} for word, part in own.groupby("word")
    ]
    caption = "log2 of a word's attention at its object's cells of the first frame over its mean there: 0 is no preference."
    return pages.Section(
        "Words and their objects", matrix_maps(maps, "step", "layer", "log2 ratio", diverging=True), caption, pd.DataFrame(table)
    )


def first_of_each_task(result: AnalysisResult) -> dict[str, AttentionFacts]:
    units = result.units_of(AttentionFacts)
    return {name: units[name] for name in result.rows.drop_duplicates("task").problem}


def map_section(store: RunStore, unit: str, facts: AttentionFacts) -> pages.Section:
    """Maps of one item: its query by layer at the middle step and by step at the middle layer; then its words."""
    tensors = store.tensors(unit)
    made = grid_maps(self_lines(tensors["self"], facts), "attention of the crossed token, by latent frame", facts.query)
    if "words" in tensors:
        step, layer = len(facts.steps) // 2, len(facts.layers) // 2
        lines = [(word, tensors["words"][step, layer, i].numpy()) for i, word in enumerate(facts.words)]
        made += grid_maps(lines, f"attention to each word, layer {facts.layers[layer]}, step {facts.steps[step]}")
    return pages.Section(f"Maps: {unit}", made, f"“{facts.prompt}”. Each line is scaled to its own largest value.")


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
