"""The page of a steering run, and the vector as a file. Knows rows, not models."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cos_interp.analyses.driver import pages
from cos_interp.analyses.driver.base import AnalysisResult
from cos_interp.analyses.driver.estimates import EFFECT, EFFECTS, Mean, PairedShares, Share
from cos_interp.analyses.driver.experiment import Report
from cos_interp.analyses.driver.facts import LeftOut
from cos_interp.analyses.driver.findings import Finding
from cos_interp.analyses.driver.kept import kept_clips, videos
from cos_interp.analyses.driver.statistics import effect
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.kit.split_pairs import none_left
from cos_interp.analyses.steering import VECTOR, CheckFacts, SteeringConfig, VectorFacts, label
from cos_interp.interp.steering import Steer
from cos_interp.reports.figures import Curve, Panel, panels

QUESTION = (
    "Does one direction carry the answer, and does it steer without a donor? At the tokens that hold the answer, two runs of "
    "one noise and two prompts are exchanged along few directions, made of other pairs; and one vector, the mean difference, is "
    "added with nothing of the other run. Effect 0: nothing moved; 1: the final latent is the other run's along their difference."
)
SOURCE = "CoS section 5.2; activation addition (2308.10248), interchange along a subspace (2303.02536)"
DOSES = (
    "Unseen pairs, bands: 95 % intervals. The vector is added, so many times, in all steps, where only the donor's "
    "answer changes a cell, and turned round where only the run's own does. Random: another direction of the same length. "
    "Damage: unreadable cells of all frames, at the steered tokens and elsewhere."
)
RANKS = (
    "The two runs exchanged along the first directions of the paired differences; along random ones, each token moved as far; "
    "and all but the first ones."
)
WAYS = (
    "n unseen pairs, 95 % intervals over pairs. Reads: strictly, every cell of every frame; elsewhere: with the steered cells "
    "left out of the verdict, because adding a vector may damage them. Shown: how much of an answer the last frame shows."
)
VIDEOS = (
    "The run that receives, the other answer's run, and the first one steered with the vector and with a random direction of its "
    "length. Table: whose answer is read, of every unseen pair; those with a link have their videos here."
)
FILE = (
    "The vector is in media/steering.safetensors: Steer.load(path) of cos_interp gives it, with a card that says what it is of."
)
WEIGHTS = "1 where only the wanted answer changes a cell, -1 where only the run's own does"
OWN = {
    "steer": "the vector", "random direction": "a random direction", "wrong place": "the vector at other tokens",
    "two items' difference": "what two other items differ by there",
}  # fmt: skip
CONTROLS = list(OWN)[1:]


def report(result: AnalysisResult[SteeringConfig], store: RunStore) -> Report:
    rows = result.rows if len(result.rows) else pd.DataFrame(columns=["table", "pair", "way", "size", "effect"])
    at = rows[rows.table == "check"] if "way" in rows else rows.iloc[:0].assign(way=[], size=[])
    facts = next(iter(result.units_of(VectorFacts).values()), None)
    found, notes = findings(result, at), _notes(result, facts)
    sections = [*_map(rows), *_doses(at), *_ranks(at), *_table(at), *_pairs(result, at, store)]
    title = f"Steering: {result.config.task if result.config.pair_file is None else 'own pairs'}"
    made = pages.build(result, title, QUESTION, SOURCE, found, sections, notes)
    if facts is None:
        return made
    return replace(made, media={**made.media, "steering.safetensors": vector_file(result, store, facts, found)})


def wide(at: pd.DataFrame, value: str) -> pd.DataFrame:
    """A row a pair, a column (way, size)."""
    if at.empty or value not in at:
        return pd.DataFrame()
    return at.assign(size=at["size"].fillna(0)).pivot_table(index="pair", columns=["way", "size"], values=value, dropna=False)


def findings(result: AnalysisResult[SteeringConfig], at: pd.DataFrame) -> list[Finding]:
    """Steered against the larger control, one direction against a random one, and what is shown."""
    moved, shown = effect(wide(at, "effect")), wide(at, "donor_shown")
    none = pd.Series(dtype=float)
    get = lambda table, way: table.get((way, 1.0), none)
    lacking = [way for way in CONTROLS if len(moved) and (way, 1.0) not in moved]
    control = pd.concat([get(moved, way) for way in CONTROLS], axis=1).max(axis=1, skipna=False)
    said = (
        ("donor-free", get(moved, "steer"), control, "the vector moves the run further than the largest control by"),
        ("rank-one", get(moved, "exchange"), get(moved, "random exchange"), "one direction goes further than a random one by"),
        (
            "shown", get(shown, "steer"), get(shown, "random direction"),
            "more of the donor's answer is shown with the vector than with a random one, by",
        ),
    )  # fmt: skip
    number = lambda values, bounds: Mean(values.astype(float), bounds=bounds)
    unfit = _unfit(moved)
    of_its_own = {"donor-free": f"the run has no control {lacking[0]!r}: run it again"} if lacking else {}
    found = []
    for name, own, beside, text in said:
        more, less = number(own - beside, EFFECTS), number(beside, EFFECT).number()
        found.append(result.judge(f"steering.{name}", more, text, less, unfit or of_its_own.get(name)))
    return [*found, _answers(result, at, unfit)] if result.config.scored else found


def _answers(result: AnalysisResult[SteeringConfig], at: pd.DataFrame, unfit: str | None) -> Finding:
    """Of own pairs with a scorer: whose answer is given."""
    judged = at[at.outcome.notna()] if "outcome" in at else at.iloc[:0]
    given = wide(judged.assign(given=(judged.outcome == "donor").astype(float)), "given") if len(judged) else pd.DataFrame()
    own, beside = (given.get((way, 1.0), pd.Series(dtype=float)) for way in ("steer", "random direction"))
    said = f"the scorer reads the other run's answer in {Share(own).number()} with the vector; more than with a random one by"
    return result.judge("steering.answers", PairedShares(own, beside), said, Share(beside).number(), unfit)


CARRIED = 0.25  # of the way that the donor's own tokens must go at the place


def _unfit(effect: pd.DataFrame) -> str | None:
    """The place must carry the answer at all."""
    if effect.empty:
        return None
    if ("donor", 0.0) not in effect:
        return "whether the donor's own tokens at this place carry the answer was not measured"
    whole = float(effect["donor", 0.0].mean())
    return (
        None if whole >= CARRIED else f"the donor's own tokens at this place go {whole:.2f} of the way: the answer is not there"
    )


def vector_file(result: AnalysisResult[SteeringConfig], store: RunStore, facts: VectorFacts, found: list[Finding]) -> bytes:
    """The vector as Steer.save writes it. Its card: what it was made of, how its tokens are weighted, and what the tests say."""
    model = {key: result.facts["model"].get(key) for key in ("name", "digest")}
    card = {
        "model": model, "task": result.config.task if result.config.pair_file is None else None, "pairs": facts.pairs,
        "tokens": list(facts.tokens), "latent frames": list(facts.frames) or "all",
        "weights": WEIGHTS if result.config.pair_file is None else "1",
        "steps": f"all {result.config.num_inference_steps}", "tests": {f.key: f"{f.verdict}: {f.number}" for f in found},
    }  # fmt: skip
    one = Steer(store.tensors(VECTOR)["vector"], f"blocks.{facts.layer}.hook_resid_post", card=card)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "steering.safetensors"
        one.save(path)
        return path.read_bytes()


def _notes(result: AnalysisResult, facts: VectorFacts | None) -> list[str]:
    notes = none_left(result.config, result.units)
    if facts is not None:
        frames = f" in latent frame {' and '.join(map(str, facts.frames))}" if facts.frames else ""
        where = f"{' and '.join(name.replace('_', ' ') for name in facts.tokens)}{frames} after block {facts.layer}"
        shares = ", ".join(f"{share:.2f}" for share in facts.shares[:4])
        notes += [
            f"The place: tokens {where}. Of {facts.pairs} pairs; the first directions have {shares} of their differences.",
            FILE,
        ]
    missing: dict[str, list[str]] = {}
    for name, left in result.units_of(LeftOut).items():
        missing.setdefault(left.reason, []).append(name)
    return notes + [f"{len(names)} part(s) left out ({names[0]}, ...): {reason}" for reason, names in missing.items()]


def _map(rows: pd.DataFrame) -> list[pages.Section]:
    at, sections = rows[rows.table == "place"], []
    if len(at):
        table = at.pivot_table(index="group", columns="layer", values="effect").reset_index()
        table.columns = [name if isinstance(name, str) else str(int(name)) for name in table.columns]
        caption = (
            f"Mean effect over {at.pair.nunique()} pairs of the donor's residual stream after a block (column) at some tokens "
            "(row), in all steps."
        )
        table = table.sort_values(table.columns[-1], ascending=False)
        sections = [pages.Section("Where it sits", caption=caption, table=table)]
    return [*sections, *_frames(rows[rows.table == "frame"])]


def _frames(at: pd.DataFrame) -> list[pages.Section]:
    if at.empty:
        return []
    means = at.groupby("frame", dropna=False).effect.mean()
    table = pd.DataFrame({"latent frame": ["all" if n != n else str(int(n)) for n in means.index], "effect": means.to_numpy()})
    caption = f"Mean effect over {at.pair.nunique()} pairs of the donor's residual stream at these tokens in one frame alone."
    return [pages.Section("In which frame", caption=caption, table=table)]


def _over(at: pd.DataFrame, value: str) -> pd.DataFrame:
    """By size: mean, interval and n over pairs."""
    out = []
    for size, part in at.groupby("size"):
        number = Mean(part[value].to_numpy(float)).number()
        out.append({"size": float(size), **number.point})
    return pd.DataFrame(out)


def _doses(at: pd.DataFrame) -> list[pages.Section]:
    if not (at.way == "steer").any():
        return []
    curve = lambda way, value, name, style="-": Curve(name, _over(at[at.way == way], value), style)
    made = [
        Panel(
            "How far it moves",
            [curve(way, "effect", name) for way, name in list(OWN.items())[:2]],
            "size",
            "dose",
            "effect",
            bounds=(-0.5, 1.5),
        )
    ]
    if "donor_shown" in at and at.donor_shown.notna().any():
        shown = [curve("steer", "donor_shown", "donor's answer"), curve("steer", "target_shown", "own answer"),
                 curve("random direction", "donor_shown", "donor's, random direction", "--")]  # fmt: skip
        damage = [curve("steer", "damage_there", "at the tokens"), curve("steer", "damage", "elsewhere"),
                  curve("random direction", "damage_there", "at the tokens, random", "--")]  # fmt: skip
        made += [
            Panel("What is shown", shown, "size", "dose", "share shown", bounds=(-0.05, 1.05)),
            Panel("Damage", damage, "size", "dose", "unreadable cells"),
        ]
    return [pages.Section("By dose", panels(made), DOSES)]


def _ranks(at: pd.DataFrame) -> list[pages.Section]:
    if not (at.way == "exchange").any():
        return []
    names = {"exchange": "first directions", "random exchange": "random ones, as far", "all but": "all but the first"}
    curves = [Curve(name, _over(at[at.way == way], "effect")) for way, name in names.items()]
    ticks = {float(size): f"{size:g}" for size in sorted(at[at.way == "exchange"]["size"].unique())}
    return [pages.Section("By rank", panels([Panel("Exchanged", curves, "size", "rank", "effect", ticks, (-0.5, 1.5))]), RANKS)]


def _table(at: pd.DataFrame) -> list[pages.Section]:
    if at.empty:
        return []
    table = pd.DataFrame([
        _line(way if np.isnan(size) else f"{way} {size:g}", part)
        for (way, size), part in at.groupby(["way", "size"], sort=False, dropna=False)
    ])  # fmt: skip
    return [pages.Section("All numbers", caption=WAYS.replace("n unseen", f"{at.pair.nunique()} unseen"), table=table)]


def _line(name: str, part: pd.DataFrame) -> dict[str, Any]:
    over = lambda column: str(Mean(part[column].to_numpy(float)).number())
    count = lambda column, who: int((part[column] == who).sum())
    row: dict[str, Any] = {"way": name, "effect": over("effect")}
    if "outcome" in part and part.outcome.notna().all():
        row |= {f"reads {who}": count("outcome", who) for who in ("donor", "target")}
    if "outcome_elsewhere" in part and part.outcome_elsewhere.notna().all():
        row |= {f"elsewhere {who}": count("outcome_elsewhere", who) for who in ("donor", "target")}
        row |= {"donor's shown": over("donor_shown"), "damage there": over("damage_there"), "damage elsewhere": over("damage")}
    return row


def _pairs(result: AnalysisResult, at: pd.DataFrame, store: RunStore) -> list[pages.Section]:
    tested = result.units_of(CheckFacts)
    say = {"effect": "effect", "donor's answer": "donor_shown", "its own": "target_shown", "damage elsewhere": "damage"}
    reels = [
        one.reel(say=say, at=_place, text="; ".join(f"“{prompt}”" for prompt in tested[one.unit].prompts))
        for one in kept_clips(result, store, CheckFacts)
    ]  # fmt: skip
    told = videos(at, label, reels, "pair")
    pairs = pd.DataFrame([
        {"item": name, "receives": f"“{f.prompts[0]}”", "other answer": f"“{f.prompts[1]}”", "steered tokens": f.tokens}
        for name, f in tested.items()
    ])  # fmt: skip
    return [
        pages.Section("Videos", caption=VIDEOS, reels=reels, table=told), pages.Section("The tested pairs", table=pairs),
    ]  # fmt: skip


def _place(name: str, row: Row) -> dict[str, str | int]:
    return {"size": row["size"]} if row else {}
