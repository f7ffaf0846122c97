"""What the memory experiment concludes: objects lost with their own tokens, hidden ones read, later frames that look back."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import DIFFERENCE, Mean
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.kit.halves import choosing_half, chosen

SHOWN = 0.5  # an object counts as there when the untouched run shows it in more of its frames
READS = 0.5  # a reader that names fewer of the visible objects cannot be asked for hidden ones


def used(result: AnalysisResult, cut: pd.DataFrame) -> list[Finding]:
    """What cutting an object's tokens costs that object, beyond cutting another object's, and the other way round; and what it
    costs the verdict. Objects: cut everywhere. Verdict: over the partial cuts that leave it to some, all together, so that
    no favourable one is picked; cut everywhere, it asks for too much."""
    everywhere = cut[(cut.step_part == "all") & (cut.layer_part == "all")]
    partial = cut[(cut.step_part != "all") | (cut.layer_part != "all")]
    return [
        dissociated(result, "memory.returned", everywhere, "returned", "frames after it was out of sight"),
        dissociated(result, "memory.kept", everywhere, "kept", "later frames"),
        answered(result, partial, solved_untouched(cut)),
    ]


def dissociated(result: AnalysisResult, key: str, cut: pd.DataFrame, value: str, frames: str) -> Finding:
    """A double dissociation: each object is lost with its own tokens and not with the other's. Over items in which the untouched
    run shows both, since only those can be lost."""
    table = cut.pivot_table(index="problem", columns="tokens", values=[value, "kept_other"], aggfunc="mean", dropna=False)
    table = table.reindex(columns=[(v, t) for v in (value, "kept_other") for t in ("none", "object", "another object")])
    table = table[(table[value, "none"] > SHOWN) & (table["kept_other", "none"] > SHOWN)].astype(float)
    first = table[value, "another object"] - table[value, "object"]
    second = table["kept_other", "object"] - table["kept_other", "another object"]
    own, beside = (Mean(table[value, name].to_numpy(), bounds=(0, 1)).number() for name in ("object", "another object"))
    said = (
        f"the share of its {frames} in which an object is right without its own tokens of the first frame is {own}; the lesser "
        "of what it loses more than without another object's, and of what that one loses more, is"
    )
    return result.judge(key, Mean(np.minimum(first, second), bounds=DIFFERENCE), said, beside)


def solved_untouched(cut: pd.DataFrame) -> set[str]:
    """The items whose untouched run is right, which alone can lose it."""
    return set(cut[(cut.tokens == "none") & (cut.solved == 1)].problem)


def answered(result: AnalysisResult, partial: pd.DataFrame, solved: set[str]) -> Finding:
    """Over the cuts that leave the answer to more than half of the items with one of both objects: the verifier asks for every
    cell, so that where a cut loses any object it loses the answer, whichever was cut, and says nothing of the two."""
    pair = ["object", "another object"]
    partial = partial[partial.problem.isin(solved) & partial.tokens.isin(pair)].astype({"solved": float})
    cuts = partial.groupby(["step_part", "layer_part", "tokens"]).solved.mean().unstack().reindex(columns=pair)
    told = cuts.index[cuts.max(axis=1) > SHOWN]
    here = partial[partial.set_index(["step_part", "layer_part"]).index.isin(told)]
    by = here.groupby(["problem", "tokens"]).solved.mean().unstack().reindex(columns=pair).dropna()
    own, other = (Mean(by[name].to_numpy(float), bounds=(0, 1)).number() for name in pair)
    said = (
        f"solved over the {len(told)} of {len(cuts)} partial cuts that do not lose the answer with both objects: {own} without "
        "the object's tokens; without another object's it is higher, by"
    )
    unfit = "every partial cut loses the answer, whichever object's tokens are cut" if len(cuts) and not len(told) else None
    return result.judge("memory.answer", Mean(by["another object"] - by["object"], bounds=DIFFERENCE), said, other, unfit)


def attended(result: AnalysisResult, rows: pd.DataFrame, elsewhere: pd.DataFrame) -> Finding:
    """Attention to an object's token over that to the mean other token, or to the same tokens in items of the task whose objects
    stand elsewhere, whichever is more, in the layer that other items chose. ``elsewhere``: ``problem, layer, elsewhere``."""
    each = rows.groupby(["task", "problem", "layer"])[["object", "other"]].mean().reset_index()
    each = each.merge(elsewhere, how="left", on=["problem", "layer"])
    control = np.maximum(each.other, each.elsewhere)  # NaN where no other item leaves the place free
    (layer,), tested = chosen(each.assign(more=np.log2(each.object / control)), "more", ["layer"])
    own, other, there = (Mean(tested[name].to_numpy(float)).number() for name in ("object", "other", "elsewhere"))
    said = (
        f"layer {layer}, best on the other half of items: a token of the object gets {own} times even attention from later "
        f"frames, the mean other token of its frame {other}; log2 of that over the larger of this and of what the same tokens "
        "get in items whose objects stand elsewhere is"
    )
    return result.judge("memory.attended", Mean(tested.set_index("problem").more.astype(float)), said, there)


def decodable(result: AnalysisResult, decoded: pd.DataFrame) -> Finding:
    """The class of a hidden object, by a reader of visible ones, more at its cell than at one that hides nothing, and more than
    from x_t; layer and step chosen on other items, among those where the reader reads what is in sight."""
    residual = decoded[decoded.source == "residual"]
    (layer, step), tested = chosen(sighted(residual).assign(more=lambda t: t.hidden - t.bare), "more")
    x_t = decoded[(decoded.source == "x_t") & (decoded.step == step)].set_index("problem")
    tested = tested.set_index("problem").dropna(subset=["more"])
    input_more = (x_t.hidden - x_t.bare).reindex(tested.index)
    hidden, bare, seen = (Mean(tested[name].to_numpy(float), bounds=(0, 1)).number() for name in ("hidden", "bare", "visible"))
    where = f"layer {layer}, step {step}, best on the other half of items: " if layer >= 0 else ""
    said = (
        f"{where}a reader of visible objects (right at {seen} of those of "
        f"items left out) names the hidden one in {hidden} of the cases, and in {bare} where as covered a cell hides nothing; "
        "the difference, less that of the same reader on x_t, is"
    )
    unfit = (
        None if layer >= 0 or residual.empty else f"at no layer and step the reader names more than {READS:g} of visible objects"
    )
    more = (tested.more - input_more).astype(float)
    control = Mean(input_more.to_numpy(float), bounds=DIFFERENCE).number()
    return result.judge("memory.hidden", Mean(more, bounds=(-2, 2)), said, control, unfit)


def sighted(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the layers and steps at which the reader names more than ``READS`` of visible objects, on the choosing half."""
    choosing = rows[rows.problem.isin(choosing_half(rows))]
    read = choosing.groupby(["layer", "step"]).visible.mean()
    places = pd.MultiIndex.from_frame(rows[["layer", "step"]])
    return rows[places.isin(read[read > READS].index)]
