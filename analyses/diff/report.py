"""Where two models part, on a page: by layer and step on the same inputs, and which layers make one of the other."""

from __future__ import annotations

import pandas as pd

from cos_interp.analyses.diff import DiffConfig, DiffFacts
from cos_interp.analyses.diff.findings import findings, same
from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import Mean
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.findings import Number
from cos_interp.analyses.driver.kept import Kept, first_items, videos
from cos_interp.analyses.driver.statistics import by_item, items_each, points
from cos_interp.analyses.driver.store import RunStore
from cos_interp.reports.figures import Curve, Panel, matrix_maps, panels, step_ticks

QUESTION = (
    "Where do two models part, and which layers of the one make the other of it? Both make a video from the same noise. The "
    "second one's weights, or the updates that its blocks wrote, are put into the first by stretches of layers: 0 is the first "
    "model's video, 1 the second's, along the difference of the two final latents."
)
SOURCE = "this project"
MODELS = {"first": "first model", "other": "other model"}
VIDEOS = "Both models from the same noise, of the first items of each task; what is read in both of every item."


def report(result: AnalysisResult[DiffConfig], store: RunStore) -> Report:
    rows, facts = result.rows, result.first(DiffFacts)
    sections = [s for s in (_effects(rows), _apart(rows, result.sigmas), _weights(rows), _videos(result, store)) if s is not None]
    notes = [f"The other model: {facts.against}, digest {str(result.config.against_digest)[:12]}."]
    if same(rows):
        notes.append("The two models make the same videos, bit for bit, from the same noises.")
    if facts.kept_apart:
        notes.append(f"Weights could not be exchanged: {facts.kept_apart}.")
    return pages.build(result, "Two models", QUESTION, SOURCE, findings(result), sections, notes, ("cause",))


def _effects(rows: pd.DataFrame) -> pages.Section | None:
    made = rows[(rows.kind == "transplant") & rows.effect.notna()]
    if made.empty:
        return None
    single = made[made.unit == "layer"]
    shown = [
        Panel(_titled("one layer", expert, single), [Curve(str(what), _curve(p)) for what, p in part.groupby("what")],
              "layer", "layer", "effect")
        for expert, part in single.groupby("expert", sort=False)
    ]  # fmt: skip
    caption = (
        "How far one layer of the other model takes the video; bands: 95 % intervals over items. All regions are in the table."
    )
    return pages.Section("What makes the difference", panels(shown), caption, _table(made), key=True)


def _number(values: pd.Series) -> Number:
    """Over items: effects that happen to be all 0 or 1 are no shares."""
    return Mean(values.astype(float), normal=True).number()


def _curve(rows: pd.DataFrame) -> pd.DataFrame:
    return points({int(layer): _number(part.effect) for layer, part in rows.groupby("layer")}, "layer")


def _table(made: pd.DataFrame) -> pd.DataFrame:
    out = []
    for (what, expert, region), part in made.groupby(["what", "expert", "region"], sort=False):
        row = {"put in": what, "expert": expert, "region": region, "effect": str(_number(part.effect))}
        row["distance from the first model's video"] = str(_number(part.moved))
        if part.as_other.notna().any():
            row["gives the other's verdict, where they differ"] = str(by_item(part[part.as_other.notna()], "as_other"))
        out.append(row)
    table = pd.DataFrame(out)
    return table.drop(columns="expert") if table.expert.nunique() == 1 else table


def _apart(rows: pd.DataFrame, sigmas: list[float]) -> pages.Section:
    found = rows[rows.kind == "apart"]
    post = found[(found.site == "hook_resid_post") & (found.branch == "cond")]
    maps = []
    for expert, part in post.groupby("expert", sort=False):
        for inputs, value, title in (
            ("given", "delta", "norm, block on the first model's input"),
            ("own", "delta", "norm, each on its own"),
            ("own", "cka", "1 - CKA, each on its own"),
        ):
            table = part[part.inputs == inputs].pivot_table(value, "layer", "step", dropna=False)
            maps.append((_titled(title, expert, post), table.rename(columns=int)))
    figure = matrix_maps(maps, "step, sigma", "layer", "apart", xticks=step_ticks(sigmas))
    caption = (
        "Residual stream after a block, on the first model's latents. Norm: |difference| / |first|. On the first model's input "
        "of the block, only what this block does can differ; on its own, what the blocks before did adds up."
    )
    by = ["inputs", "expert", "layer", "site"]
    table = found.groupby(by, sort=False)[["delta", "cka", "cka_debiased"]].mean().reset_index()
    named = {"delta": "|difference| / |first|", "cka": "1 - CKA", "cka_debiased": "1 - CKA, debiased"}
    return pages.Section(
        "On the same inputs", figure, caption, table.rename(columns=named), of=items_each(post, ["expert", "layer", "step"])
    )


def _weights(rows: pd.DataFrame) -> pages.Section | None:
    found = rows[rows.kind == "weights"]
    if found.empty:
        return None
    total = found.energy.sum()
    table = found.assign(share=found.energy / total if total else 0.0)[["expert", "layer", "part", "delta", "share"]]
    named = {"delta": "|difference| / |first|", "share": "share of the whole squared difference"}
    caption = "How far the weights are apart, which says nothing of what it does."
    largest = table.sort_values("share", ascending=False, kind="stable").rename(columns=named)
    return pages.Section("Weights", None, caption, largest)


def _videos(result: AnalysisResult[DiffConfig], store: RunStore) -> pages.Section:
    rows = result.rows[result.rows.kind == "plain"]
    units = result.units_of(DiffFacts)
    of = lambda name: rows[rows.problem == name].to_dict("records")
    reels = [
        Kept(name, units[name].prompt, store.tensors(name)["videos"].numpy(), tuple(MODELS.values()), of(name)).reel()
        for name in first_items(rows)
    ]
    apart = rows[rows.what == "other"].set_index("problem").moved.astype(float)
    table = videos(rows, lambda row: MODELS[row["what"]], reels, beside=pd.DataFrame({"the videos are apart by": apart}))
    return pages.Section("Videos", caption=VIDEOS, reels=reels, table=table)


def _titled(title: str, expert: object, rows: pd.DataFrame) -> str:
    return f"{title}, {expert}" if rows.expert.nunique() > 1 else title
