"""Is what a probe reads used? Two runs of a counterfactual pair exchange it, and the video says whose answer follows.

At one layer, at the tokens on which the target's labels of the two runs differ, the one run is given what a least-squares probe
reads of the other, at every step of a span. It is written along the directions in which the data vary with what is read (LEACE's
projection, Belrose et al. 2023), so that the run stays among states that the model makes, where erasing everything at all tokens
does not. The control gives it what random directions of the whitened data read of the other, made as long at every token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cos_interp.analyses.driver.experiment import Unit
from cos_interp.analyses.driver.outlook import Outlook, Use
from cos_interp.analyses.driver.statistics import distance, projection
from cos_interp.analyses.driver.store import Row, RunStore
from cos_interp.analyses.kit import recorded
from cos_interp.analyses.kit.kinds import PairKind
from cos_interp.analyses.kit.pairs import NoPair, Pair, Recorder, Side, find_pair
from cos_interp.analyses.kit.problems import arguments, problems
from cos_interp.analyses.kit.recorded import Gives
from cos_interp.analyses.kit.shown import shown
from cos_interp.analyses.probing import ProbesConfig
from cos_interp.interp.keeping import Keeping
from cos_interp.interp.model import HookedVideoPipeline
from cos_interp.interp.run.clock import Hook
from cos_interp.interp.trajectory import Run
from cos_interp.probes.clip import Clip
from cos_interp.probes.collect import grid_of
from cos_interp.probes.crossval import ask
from cos_interp.probes.dataset import ProbeDataset
from cos_interp.probes.estimator import LinearProbe
from cos_interp.probes.targets import Target
from cos_interp.probes.use import Erasure, interchange, leace, matched_control, random_erasure
from cos_interp.tasks import get_task
from cos_interp.tasks.base import outcome

SPAN = 0.75  # of the steps, and of the depth: in the last quarter a direction is the picture itself, and writing it paints
DEEPEST = 0.75
ORDER = ("corrupt", "clean")


@dataclass(frozen=True)
class Reader:
    """A target's probes at one layer, and where each writes what it reads, by probed step; and the activations of the middle
    one, for directions like them."""

    target: Target
    name: str
    probes: dict[int, LinearProbe]
    along: dict[int, Erasure]
    X: np.ndarray

    def at(self, step: int) -> int:
        """The nearest probed step."""
        return min(self.probes, key=lambda probed: (abs(probed - step), probed))

    def random(self, seed: int) -> Erasure:
        """Directions without meaning, the same at all steps: other ones at each step would undo one another."""
        return random_erasure(self.X, min(found.rank for found in self.along.values()), seed)


@dataclass(frozen=True)
class Exchange:
    """Two runs that exchange what a probe reads, at ``tokens [frame, row, col]``."""

    pair: Pair
    labels: tuple[np.ndarray, np.ndarray]  # of the receiving and of the giving run
    tokens: Tensor


def kind_of(target: Target) -> PairKind:
    """What the two sides of a pair must differ in for their labels to differ: what is seen, or what is asked."""
    return "image" if target.family == "perception" else "prompt"


def steps_of_span(steps: int) -> range:
    return range(math.ceil(SPAN * steps))


def use_of(outlook: Outlook, name: str) -> Use:
    """The recordings of a pair that gives a layer's activations, and the pixels beside them."""
    return Use("pairs, recorded", kept=recorded.foreseen(outlook, [_gives(name, outlook.steps)] * len(ORDER), ()), decoded=1)


def _gives(name: str, steps: int) -> Gives:
    return Gives([name], list(steps_of_span(steps)), Keeping(()))  # nothing starts from these runs


def recorder(model: HookedVideoPipeline, config: ProbesConfig, store: RunStore, name: str) -> Recorder:
    """Makes the recordings of a pair, each in its place and within its part of the memory."""
    kept = dict.fromkeys(ORDER, _gives(name, config.num_inference_steps))
    return recorded.recorder(model, config, store, kept, ORDER, lambda outlook: use_of(outlook, name))


def used_unit(
    model: HookedVideoPipeline, config: ProbesConfig, store: RunStore, data: ProbeDataset, target: str, task: str,
    scores: pd.DataFrame,
) -> Unit:  # fmt: skip
    """Rows by pair, edit and dose, at the layer with the largest selectivity of those that have layers after them to read it."""
    if "score" not in scores:
        return Unit([])
    found = scores[(scores.table == "score") & (scores.target == target)]
    found = found[found.layer < DEEPEST * model.layers] if len(found) else found
    if found.empty:
        return Unit([])
    measured = "selectivity" if "selectivity" in found else "score"
    name = str(found.groupby("name")[measured].mean().idxmax())
    reader = fitted(config, data, target, name)
    each = (item_rows(model, config, store, reader, task, index) for index in range(config.used_items))
    return Unit([row for rows in each for row in rows])


def fitted(config: ProbesConfig, data: ProbeDataset, target: str, name: str) -> Reader:
    """Probes of a layer on all clips, one a probed step of the span, by least squares, whose directions LEACE reads, too."""
    question = ask(data, target, config.folds)
    last = steps_of_span(config.num_inference_steps)[-1]
    steps = [step for step in data.steps if step <= last] or [min(data.steps)]
    acts = {step: np.asarray(data.storage.read(name, data.at(step), question.rows), np.float64) for step in steps}
    probes = {step: LinearProbe("ridge-classifier", inner=1).fit(X, question.y, question.clip) for step, X in acts.items()}
    along = {step: leace(X, question.y) for step, X in acts.items()}
    return Reader(data.targets[target], name, probes, along, acts[steps[len(steps) // 2]])


def item_rows(
    model: HookedVideoPipeline, config: ProbesConfig, store: RunStore, reader: Reader, task: str, index: int
) -> Iterator[Row]:  # fmt: skip
    """All rows of one pair; one row that says why where there is none."""
    try:
        pair = find_pair(recorder(model, config, store, reader.name), task, kind_of(reader.target), index, unique=True)
    except NoPair as error:
        yield {"table": "left out", "target": reader.target.name, "why": str(error)}
        return
    seen = {p.item.first_frame.tobytes() for p in problems(config) if p.item is not None}
    if pair.corrupt.item.first_frame.tobytes() in seen:
        yield {"table": "left out", "target": reader.target.name, "why": "a pair whose picture the probes were trained on"}
        return
    exchange = exchanged(model, reader.target, pair)
    about = {"table": "use", "target": reader.target.name, "name": reader.name, **pair.corrupt.problem.facts}
    about |= {"tokens": int(exchange.tokens.sum()), "told": told(reader, exchange)}
    for row in edited(model, config, reader, exchange, index):
        yield {**about, **row}


def exchanged(model: HookedVideoPipeline, target: Target, pair: Pair) -> Exchange:
    """A pair with the target's labels of its two runs, and the tokens on which they differ."""
    sides = (pair.corrupt, pair.clean)
    own, given = (target.read(Clip("use", s.recording.run, s.item, grid_of(model, s.recording.run))) for s in sides)
    return Exchange(pair, (own, given), torch.from_numpy(own != given))


def told(reader: Reader, exchange: Exchange) -> float:
    """The manipulation check: the share of those tokens, over the span, at which the probe reads both runs right, so that
    exchanging what it reads puts the other's label in. NaN without such a token."""
    tokens = exchange.tokens.numpy()
    if not tokens.any():
        return float("nan")
    sides = (exchange.pair.corrupt, exchange.pair.clean)
    right = []
    for step in steps_of_span(exchange.pair.corrupt.recording.run.steps):
        each = [_right(reader, side, labels[tokens], tokens, step) for side, labels in zip(sides, exchange.labels, strict=True)]
        right.append(np.logical_and(*each))
    return float(np.mean(right))


def _right(reader: Reader, side: Side, labels: np.ndarray, tokens: np.ndarray, step: int) -> np.ndarray:
    """Whether the probe reads a run's labels at some tokens; tokens without a label (-1) count as right."""
    act = side.recording.cache[reader.name, step, "cond"].float().cpu().flatten(4).numpy()[0][tokens]
    return (reader.probes[reader.at(step)].predict(act) == labels) | (labels == -1)


def edited(
    model: HookedVideoPipeline, config: ProbesConfig, reader: Reader, exchange: Exchange, seed: int
) -> Iterator[Row]:  # fmt: skip
    """The receiving run as it is, and with what is read exchanged along the probe's and along random directions."""
    target = exchange.pair.corrupt
    span = steps_of_span(target.recording.run.steps)
    random = reader.random(seed)
    yield {"edit": "none", "dose": 0.0, **read(exchange.pair, target.recording.run)}
    for dose in config.used_doses if exchange.tokens.any() else ():
        for edit in ("own", "random"):
            change = partial(changed, reader, exchange, random if edit == "random" else None, dose)
            hooks = [(f"{reader.name} @ step={span.start}:{span.stop}", change)]
            run = model.run_with_hooks(fwd_hooks=hooks, **arguments(model, config, target.problem))
            yield {"edit": edit, "dose": dose, **read(exchange.pair, run)}


def changed(reader: Reader, exchange: Exchange, random: Erasure | None, dose: float, act: Tensor, hook: Hook) -> Tensor:
    """An activation with what the probe reads of the other run, or, as far at every token, with what random directions read."""
    given = exchange.pair.clean.recording.cache[reader.name, hook.step, hook.branch or "cond"]
    own = interchange(reader.along[reader.at(hook.step)], given, exchange.tokens, dose)
    if random is None:
        return own(act, hook)
    return matched_control(own, interchange(random, given, exchange.tokens))(act, hook)


def read(pair: Pair, run: Run) -> Row:
    """What a run shows: the strict outcome, how much of either answer, and where its final latent lies between the two."""
    target, donor, frames = pair.corrupt, pair.clean, run.decode()[0]
    ends = target.recording.run.latents, donor.recording.run.latents
    return {
        "outcome": outcome(get_task(target.item.task), target.item, donor.item, frames),
        "donor_shown": shown(donor.item, target.item, frames), "target_shown": shown(target.item, donor.item, frames),
        "effect": projection(run.latents, *ends), "moved": distance(run.latents, ends[0]),
    }  # fmt: skip
